//! `weir lb simulate`.

use serde_json::json;

use super::{
    Error,
    args::{self, ReportOutput},
    client, input,
    output::{Table, count, json, list},
    print,
};
use crate::protocol::{Change, Request, Response, RingChange, Simulation};

/// New connections that the numbers of a [`RingChange`] are out of.
const SAMPLES: f64 = 100_000.0;

/// `weir lb simulate`.
pub(super) fn run(args: &args::Simulate) -> Result<u8, Error> {
    let documents = input::read_for(&args.target, &args.files.files)?;
    let texts = documents.objects.iter().map(|object| object.text().clone()).collect();
    let request = Request::Simulate { change: Change::Apply(texts) };
    let mut simulations = Vec::new();
    for agent in client::agents(&args.target)? {
        match agent.ask(&request)? {
            Response::Simulation(simulation) => simulations.push((agent.name, simulation)),
            other => return Err(Error::unexpected(&other)),
        }
    }
    let moves = simulations.iter().any(|(_, simulation)| {
        !simulation.rings.is_empty() || simulation.flows_moved + simulation.flows_cut > 0
    });
    match args.output {
        ReportOutput::Json => {
            let node =
                |(node, simulation): &(String, Simulation)| json!({ "node": node, "simulation": simulation });
            print(&json(&list("SimulationList", &simulations.iter().map(node).collect::<Vec<_>>())))?;
        }
        ReportOutput::Text => print(&render(&simulations))?,
    }
    Ok(u8::from(moves))
}

fn render(simulations: &[(String, Simulation)]) -> String {
    let mut table = Table::new([
        "NODE",
        "SERVICE",
        "PORT",
        "CLIENTS",
        "BACKENDS",
        "SLOTS",
        "MOVED",
        "NEEDLESSLY",
        "LIVE",
        "LIVE MOVED",
        "LIVE CUT",
    ]);
    let mut summary = String::new();
    for (node, simulation) in simulations {
        for ring in &simulation.rings {
            table.row(cells(node, ring));
        }
        let Simulation { unchanged, flows, flows_moved, flows_cut, .. } = simulation;
        summary.push_str(&format!(
            "{node}: {} of services stay as they are; of {} through services {flows_moved} would go to another \
             backend, {flows_cut} would end\n",
            count(*unchanged, "port"),
            count(*flows, "live connection"),
        ));
    }
    let rings = if table.is_empty() { String::new() } else { format!("{table}\n") };
    rings + &super::output::escape_lines(&summary)
}

fn cells(node: &str, ring: &RingChange) -> [String; 11] {
    let percent = |part: usize| format!("{:.1} %", part as f64 * 100.0 / SAMPLES);
    let clients = if ring.outside { "outside" } else { "inside" };
    [
        node.to_owned(),
        ring.service.clone(),
        ring.port.clone(),
        format!("{clients}, IPv{}", ring.family),
        format!("{} -> {}", ring.backends_before, ring.backends_after),
        format!("{} -> {}", ring.slots_before, ring.slots_after),
        percent(ring.moved),
        percent(ring.moved_from_staying),
        ring.flows.to_string(),
        ring.flows_moved.to_string(),
        ring.flows_cut.to_string(),
    ]
}
