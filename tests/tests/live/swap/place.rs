//! Where things are: pods on interfaces, a thread on a processor.

use std::{collections::BTreeMap, net::IpAddr};

use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use weir::plan::Interface;
use weir_tests::live::Live;

/// Where the pods of node 1 hang.
pub fn interfaces(live: &Live) -> BTreeMap<IpAddr, Interface> {
    let link = |at: &str, name: &str| -> serde_json::Value {
        let links = live.command(at, "ip", &["-json", "link", "show", name]);
        serde_json::from_str::<Vec<_>>(&links).unwrap().remove(0)
    };
    let pods = live.plan.pods.iter().filter(|pod| pod.node == 0);
    pods.flat_map(|pod| {
        let there = link("node-1", pod.interface.as_deref().unwrap());
        let here = link(&pod.name.name, "eth0");
        let mac: Vec<_> = here["address"].as_str().unwrap().split(':').collect();
        let mac = std::array::from_fn(|byte| u8::from_str_radix(mac[byte], 16).unwrap());
        let ifindex = there["ifindex"].as_u64().unwrap() as u32;
        pod.addresses.iter().map(move |address| (*address, Interface { ifindex, mac }))
    })
    .collect()
}

/// Keeps this thread on the processor that it is on.
pub fn stay_on_this_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}
