//! The demo: a cluster of network namespaces, built from manifests, enforced by real agents, and probed.

mod agents;
mod edge;
mod entrances;
mod matrix;
mod model;
pub mod netns;
pub mod network;
pub mod outside;
pub mod plan;
mod probe;
mod record;
mod spread;
#[cfg(test)]
mod tests;
pub mod worker;

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time,
};
use weir::{
    cluster::{Cluster, Objects},
    manifest::{self, Diagnostics},
};

use self::{
    agents::Agents, model::Model, outside::OUTSIDE, plan::Plan, probe::Workers, record::Record,
    worker::Worker,
};
use xtask::{build, cli::RunArgs, machine, shell::step, style::Style};

/// How often to ask whether the policies changed.
const INTERVAL: Duration = Duration::from_millis(500);

/// Builds the cluster, shows it, and removes it.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let manifests = &args.manifests()?;
    let cluster = load(manifests)?;
    let weir = if args.no_agent { None } else { Some(build::beside_us("weir")?) };
    machine::prepare()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let [mut interrupt, mut terminate, mut hangup] = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let mut demo = Demo::claim(&cluster)?;
        demo.build(manifests, weir.as_deref())?;
        tokio::select! {
            verdict = demo.show(cluster, manifests, args.once) => verdict,
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
            _ = hangup.recv() => Ok(ExitCode::from(129)),
        }
    })
}

/// A cluster on this machine. Dropping it removes it.
struct Demo {
    plan: Plan,
    record: Record,
    agents: Option<Agents>,
    workers: Workers,
}

impl Demo {
    fn claim(cluster: &Cluster) -> Result<Self> {
        let plan = Plan::new(cluster)?;
        for note in &plan.notes {
            step("Skipping", note);
        }
        let nodes = plan.nodes.iter().map(|node| node.name.clone()).collect();
        let namespaces = [&plan.namespaces()[..], &[OUTSIDE]].concat();
        let record = Record::claim(&namespaces, nodes)?;
        Ok(Self { plan, record, agents: None, workers: Workers::new() })
    }

    fn build(&mut self, manifests: &Path, weir: Option<&Path>) -> Result<()> {
        let Self { plan, record, agents, workers } = self;
        step("Creating", format_args!("{} nodes and {} pods", plan.nodes.len(), plan.pods.len()));
        network::build(plan)?;
        outside::build()?;
        if let Some(weir) = weir {
            step("Starting", "an agent on every node");
            *agents = Some(Agents::start(weir, plan, manifests, record)?);
        }
        step("Attaching", "the pods");
        for pod in &plan.pods {
            match agents {
                Some(agents) => agents.attach(plan, pod)?,
                None => network::bring_up(plan, pod)?,
            }
            network::route_to(plan, pod)?;
        }
        for netns in plan.namespaces() {
            let pods: Vec<_> = plan.pods.iter().filter(|pod| pod.netns == netns).collect();
            workers.insert(netns.to_owned(), Arc::new(Worker::start(netns, &pods)?));
        }
        workers.insert(OUTSIDE.to_owned(), Arc::new(Worker::start(OUTSIDE, &[])?));
        Ok(())
    }

    /// Shows who reaches whom: once, or whenever the policies in force change.
    async fn show(&self, mut cluster: Cluster, manifests: &Path, once: bool) -> Result<ExitCode> {
        let mut revisions = self.revisions();
        loop {
            let right = self.look(&cluster).await?;
            if once {
                return Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            self.hint();
            revisions = self.changed(revisions).await;
            if let Some(agents) = &self.agents {
                cluster = agents.cluster(manifests)?;
            }
        }
    }

    /// Probes and draws; says whether everything is as the policies say.
    async fn look(&self, cluster: &Cluster) -> Result<bool> {
        let model = if self.agents.is_some() { Model::of(cluster)? } else { Model::Open };
        let probes = probe::every_pair(&self.plan, &model);
        step("Probing", format_args!("{} connections between pods", probes.len()));
        let observations = probe::run(&self.plan, &self.workers, probes).await;
        let style = Style::stdout();
        println!("\n{}", matrix::draw(&self.plan, &observations, style));
        let mut faults = observations.iter().filter(|seen| seen.is_mismatch()).count();
        if let Some(agents) = &self.agents {
            step("Probing", "services");
            let spreads = spread::measure(&self.plan, cluster, &model, &self.workers).await;
            println!("\n{}", spread::draw(&spreads, style));
            faults += spreads.iter().map(|spread| spread.faults().len()).sum::<usize>();
            faults += self.look_from_outside(cluster, &model, agents).await?;
        }
        Ok(faults == 0)
    }

    /// Connects to services from outside, by a router that knows a way by every node; says what is wrong.
    async fn look_from_outside(&self, cluster: &Cluster, model: &Model, agents: &Agents) -> Result<usize> {
        let addresses = edge::addresses(cluster);
        if addresses.is_empty() {
            return Ok(0);
        }
        step("Probing", "services from outside");
        outside::route(&addresses, &self.plan.nodes)?;
        let client = &self.workers[OUTSIDE];
        let entrances = edge::measure(&self.plan, cluster, model, agents, client).await?;
        println!("\n{}", entrances::draw(&self.plan, &entrances, Style::stdout()));
        Ok(entrances.iter().map(|entrance| entrance.faults().len()).sum())
    }

    /// Waits for other revisions than these, the same on a second look: an `apply` goes from node to node. An
    /// agent that does not answer is no news: what it enforced stays in force.
    async fn changed(&self, known: Vec<Option<u64>>) -> Vec<Option<u64>> {
        let mut last = known.clone();
        loop {
            time::sleep(INTERVAL).await;
            let now: Vec<_> =
                self.revisions().into_iter().zip(&known).map(|(now, before)| now.or(*before)).collect();
            if now != known && now == last {
                return now;
            }
            last = now;
        }
    }

    fn revisions(&self) -> Vec<Option<u64>> {
        self.agents.as_ref().map(Agents::revisions).unwrap_or_default()
    }

    fn hint(&self) {
        let style = Style::stdout();
        let mut pods = self.plan.pods.iter().filter(|pod| pod.interface.is_some());
        let Some(pod) = pods.next_back() else { return };
        println!("  The cluster stays up until Ctrl-C. In a second terminal:\n");
        if let Some(agents) = &self.agents {
            let directory = agents.weir().parent().unwrap_or(Path::new("."));
            println!("    {}", style.bold(&format!("export PATH={}:$PATH", directory.display())));
            for line in [
                "weir apply -f examples/deny-all.yaml     # the matrix is drawn again here, in red",
                "weir delete -f examples/deny-all.yaml",
                "weir get pods|services|policies|endpoints",
                "weir status",
            ] {
                println!("    {line}");
            }
        }
        println!("    nsenter --net=/run/netns/{} bash     # a shell in pod {}\n", pod.netns, pod.name);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        step("Removing", "the cluster");
        self.workers.clear();
        for error in self.record.remove() {
            eprintln!("error: {error}");
        }
    }
}

/// Reads manifests as an agent does.
fn load(manifests: &Path) -> Result<Cluster> {
    let documents = manifest::read(&[manifests.to_owned()]).map_err(refused)?;
    let mut objects = Objects::default();
    objects.insert_all(documents);
    objects.build().map_err(refused)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(found: Diagnostics) -> anyhow::Error {
    anyhow!("the manifests are wrong; nothing was started\n{found}")
}
