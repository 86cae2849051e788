//! The demo on the real kernel: needs root.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use weir::cluster::Name;
use xtask::shell;

use super::*;

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
            match &*demo.plan.pods[pod].name.name {
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
