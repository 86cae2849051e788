//! The demo: a cluster of network namespaces, built from manifests, enforced by real agents, and probed.

mod agents;
mod matrix;
mod model;
mod netns;
mod network;
mod plan;
mod probe;
mod record;
mod spread;
pub(crate) mod style;
mod worker;

use std::{fs, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
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
    agents::Agents, model::Model, plan::Plan, probe::Workers, record::Record, style::Style, worker::Worker,
};
use crate::{build, machine, shell::step};

/// How often to ask whether the policies changed.
const INTERVAL: Duration = Duration::from_millis(500);

/// Builds the cluster, shows it, and removes it.
pub(crate) fn run(manifests: &Path, once: bool, no_agent: bool) -> Result<ExitCode> {
    machine::prepare()?;
    let manifests =
        fs::canonicalize(manifests).with_context(|| format!("no manifests at {}", manifests.display()))?;
    let weir = if no_agent { None } else { Some(build::all(false)?) };
    machine::prepare()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let [mut interrupt, mut terminate, mut hangup] = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let cluster = load(&manifests)?;
        let mut demo = Demo::claim(&cluster)?;
        demo.build(&manifests, weir.as_deref())?;
        tokio::select! {
            verdict = demo.show(cluster, once) => verdict,
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
        let record = Record::claim(&plan.namespaces(), nodes)?;
        Ok(Self { plan, record, agents: None, workers: Workers::new() })
    }

    fn build(&mut self, manifests: &Path, weir: Option<&Path>) -> Result<()> {
        let Self { plan, record, agents, workers } = self;
        step("Creating", format_args!("{} nodes and {} pods", plan.nodes.len(), plan.pods.len()));
        network::build(plan)?;
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
        Ok(())
    }

    /// Shows who reaches whom: once, or whenever the policies in force change.
    async fn show(&self, mut cluster: Cluster, once: bool) -> Result<ExitCode> {
        let mut revisions = self.revisions();
        loop {
            let right = self.look(&cluster).await?;
            if once {
                return Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            self.hint();
            revisions = self.changed(revisions).await;
            if let Some(agents) = &self.agents {
                cluster = agents.cluster()?;
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
        if self.agents.is_some() {
            step("Probing", "services");
            let spreads = spread::measure(&self.plan, cluster, &model, &self.workers).await;
            println!("\n{}", spread::draw(&spreads, style));
            faults += spreads.iter().map(|spread| spread.faults().len()).sum::<usize>();
        }
        Ok(faults == 0)
    }

    /// Waits for other revisions than these, the same on a second look: an `apply` goes from node to node.
    async fn changed(&self, known: Vec<Option<u64>>) -> Vec<Option<u64>> {
        let mut last = known.clone();
        loop {
            time::sleep(INTERVAL).await;
            let now = self.revisions();
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
    anyhow!("{} errors in the manifests; nothing was started\n{found}", found.errors())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Mutex, PoisonError},
    };

    use weir::cluster::Name;

    use super::*;
    use crate::shell;

    /// Only one demo fits on a machine.
    static MACHINE: Mutex<()> = Mutex::new(());

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        machine::prepare().unwrap();
        runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn built() -> Demo {
        let mut demo = Demo::claim(&plan::tests::sample()).unwrap();
        demo.build(Path::new("/nonexistent"), None).unwrap();
        demo
    }

    /// Names of the demo's namespaces that are there.
    fn namespaces() -> Vec<String> {
        let plan = Plan::new(&plan::tests::sample()).unwrap();
        let there = |name: &&str| Path::new("/run/netns").join(name).exists();
        plan.namespaces().into_iter().filter(there).map(str::to_owned).collect()
    }

    #[test]
    fn without_agents_everything_is_connected_and_nothing_is_left_behind() {
        block_on(async {
            let demo = built();
            assert_eq!(namespaces().len(), 7);
            let probes = probe::every_pair(&demo.plan, &Model::Open);
            // Two ports; 12 pairs over IPv4, and 6 over IPv6 between the three pods that have it.
            assert_eq!(probes.len(), 2 * (12 + 6));
            let observations = probe::run(&demo.plan, &demo.workers, probes).await;
            let wrong: Vec<_> = observations.iter().filter(|seen| seen.is_mismatch()).collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
            drop(demo);
            assert_eq!(namespaces(), [""; 0]);
            assert!(!record::state("demo.json").exists());
        });
    }

    #[test]
    fn what_is_cut_is_silent_and_shows_as_a_mismatch() {
        block_on(async {
            let demo = built();
            let (one, three) = (0..demo.plan.pods.len()).fold((None, None), |(one, three), pod| {
                match demo.plan.pods[pod].name.name.as_str() {
                    "one" => (Some(pod), three),
                    "three" => (one, Some(pod)),
                    _ => (one, three),
                }
            });
            let cut = &demo.plan.pods[three.unwrap()];
            netns::ip(Some(&cut.netns), &["route add blackhole 10.1.0.1/32".to_owned()]).unwrap();
            let mut probes = probe::every_pair(&demo.plan, &Model::Open);
            probes.retain(|probe| probe.from == one.unwrap() && probe.to == three.unwrap());
            let observations = probe::run(&demo.plan, &demo.workers, probes).await;
            for seen in &observations {
                assert_eq!(seen.is_mismatch(), seen.probe.target.is_ipv4(), "{seen:?}");
            }
            assert_eq!(observations.len(), 4);
        });
    }

    #[test]
    fn a_later_demo_removes_what_a_dead_one_left_and_spares_a_live_one() {
        block_on(async {
            let mut first = built();
            assert!(
                Demo::claim(&plan::tests::sample())
                    .is_err_and(|error| error.to_string().contains("another demo runs"))
            );
            assert_eq!(namespaces().len(), 7);

            first.record.disown().unwrap();
            first.workers.clear();
            std::mem::forget(first);
            let second = Demo::claim(&plan::tests::sample()).unwrap();
            assert_eq!(namespaces(), [""; 0]);
            drop(second);
        });
    }

    #[test]
    fn the_example_shop_has_what_the_readme_promises() {
        let cluster = load(&shell::root().join("examples/shop")).unwrap();
        assert_eq!(cluster.nodes.len(), 2);
        assert_eq!(cluster.namespaces.len(), 3);
        assert!(cluster.pods.len() >= 9);
        let plan = Plan::new(&cluster).unwrap();
        assert_eq!(plan.notes, [""; 0]);
        let on_both_nodes = cluster.services.keys().filter(|service| {
            let slices = cluster.slices.values().filter(|slice| {
                slice.service.as_ref() == Some(&service.name) && slice.name.namespace == service.namespace
            });
            slices
                .flat_map(|slice| &slice.endpoints)
                .map(|endpoint| &endpoint.node)
                .collect::<BTreeSet<_>>()
                .len()
                == 2
        });
        let names: Vec<_> = on_both_nodes.map(Name::to_string).collect();
        assert_eq!(names, ["data/db", "ops/dns", "shop/api", "shop/web"]);
    }
}
