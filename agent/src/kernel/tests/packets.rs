//! The programs on packets.

use std::time::Duration;

use weir_common::{event::kind, reason::Hook, state::events};

use super::*;

#[test]
fn before_the_first_commit_everything_is_dropped() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        let pod = kernel.attach_pod("pod0").unwrap();
        let outcome = run(&kernel, Program::FromPod, pod, &udp());
        assert_eq!(outcome.verdict, DROP);
        let drops = kernel.drops().unwrap().into_iter().filter(|(hook, ..)| *hook == Hook::FromPod);
        assert_eq!(drops.map(|(_, _, counter)| counter.packets).sum::<u64>(), 1);
    });
}

#[test]
fn events_reach_their_reader() {
    in_namespace(|object, options| {
        let options = Options { events: events::DROPS | events::FLOWS, ..options.clone() };
        let mut kernel = Kernel::open(object, &options).unwrap();
        let pod = kernel.attach_pod("pod0").unwrap();
        kernel.commit(&datapath(), &interfaces(pod)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let event = runtime.block_on(async {
            let mut events = kernel.events().unwrap();
            // A VLAN tag: dropped whatever is committed.
            let mut packet = udp();
            packet.splice(12..12, [0x81, 0x00, 0x00, 0x01]);
            run(&kernel, Program::FromPod, pod, &packet);
            tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap()
        });
        assert_eq!((event.kind, event.len), (kind::DROP, 64));
    });
}

/// `TC_ACT_SHOT`.
const DROP: u32 = 2;

/// A UDP packet of 60 bytes from 10.0.0.1 to 10.0.0.2.
fn udp() -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(1000, 2000).write(&mut packet, &[0; 18]).unwrap();
    packet
}

fn run(kernel: &Kernel, program: Program, ifindex: u32, data: &[u8]) -> sys::Outcome {
    use std::os::fd::AsFd as _;
    let programs = kernel.programs();
    let (_, info) = programs.iter().find(|(found, _)| *found == program).unwrap();
    let packet = sys::Packet { data, ifindex, ingress_ifindex: ifindex, ..sys::Packet::default() };
    sys::test_run(info.fd().unwrap().as_fd(), &packet).unwrap()
}
