//! Programs at their hooks: how they are attached, and that they stay so.

use aya::programs::{SchedClassifier, TcAttachType};
use weir_common::service::flags;

use super::*;
use crate::kernel::{AttachMode, netlink::Netlink};

/// The same, its services to be served at the edge.
fn asking_for_the_edge() -> Datapath {
    let mut datapath = datapath();
    let frontends: Vec<_> =
        datapath.frontends.iter().map(|(key, service)| (*key, Service::clone(service))).collect();
    for (key, service) in frontends {
        datapath.frontends.insert(key, Service { flags: service.flags | flags::EDGE, ..service });
    }
    datapath
}

#[test]
fn links_that_were_removed_are_noticed_and_put_back() {
    for mode in [AttachMode::Tcx, AttachMode::Clsact] {
        in_namespace(move |object, options| {
            let options = Options { attach_mode: Some(mode), ..options.clone() };
            let mut kernel = Kernel::open(object, &options).unwrap();
            let pod = kernel.attach_pod("pod0").unwrap();
            assert_eq!(kernel.verify().unwrap(), []);
            match mode {
                AttachMode::Tcx => {
                    std::fs::remove_file(Pins::new(&options.pins).link(pod, "to_pod")).unwrap();
                    let (_, programs) = SchedClassifier::query_tcx("pod0", TcAttachType::Egress).unwrap();
                    assert_eq!(programs.len(), 1, "it stays attached without its pin");
                }
                AttachMode::Clsact => tc("filter del dev pod0 egress"),
            }
            assert_eq!(kernel.verify().unwrap(), [(pod, Program::ToPod)]);
            assert_eq!(kernel.repair().unwrap(), [(pod, Program::ToPod)]);
            assert_eq!(kernel.verify().unwrap(), []);

            ip("link del pod0");
            assert_eq!(kernel.repair().unwrap(), []);
            assert_eq!(kernel.attached().len(), 0);
        });
    }
}

#[test]
fn clsact_filters_are_replaced_in_place_and_leave_no_qdisc() {
    in_namespace(|object, options| {
        let options = Options { attach_mode: Some(AttachMode::Clsact), ..options.clone() };
        // This qdisc is somebody else's and stays.
        tc("qdisc add dev up0 clsact");
        let mut kernel = Kernel::open(object, &options).unwrap();
        let (pod, uplink) = (kernel.attach_pod("pod0").unwrap(), kernel.attach_uplink("up0").unwrap());
        drop(kernel);
        let mut kernel = Kernel::open(object, &options).unwrap();
        // Two at each interface, and one at the loopback interface.
        assert_eq!(kernel.attached().len(), 5);
        assert_eq!(kernel.netlink.filters(pod).unwrap().len(), 2, "replaced, not added");
        assert!(kernel.detach(uplink).is_empty());
        assert!(kernel.netlink.has_clsact(uplink).unwrap());
        assert_eq!(kernel.netlink.filters(uplink).unwrap().len(), 0);

        let netlink = Netlink::open().unwrap();
        drop(kernel);
        let errors = detach_all(&options.pins);
        assert!(errors.is_empty(), "{errors:?}");
        assert!(!netlink.has_clsact(pod).unwrap());
        assert!(!options.pins.exists());
    });
}

#[test]
fn an_agent_of_the_other_mode_takes_over() {
    in_namespace(|object, options| {
        for mode in [AttachMode::Clsact, AttachMode::Tcx, AttachMode::Clsact] {
            let options = Options { attach_mode: Some(mode), ..options.clone() };
            let mut kernel = Kernel::open(object, &options).unwrap();
            let pod = kernel.attach_pod("pod0").unwrap();
            assert_eq!(kernel.verify().unwrap(), []);
            let (links, filters) = (attached_programs(&options, pod), kernel.netlink.filters(pod).unwrap());
            let expected = if mode == AttachMode::Tcx { (2, 0) } else { (0, 2) };
            assert_eq!((links.len(), filters.len()), expected);
        }
    });
}

#[test]
fn the_edge_is_attached_in_a_way_that_what_it_sends_arrives() {
    in_namespace(|object, options| {
        // A bridge's driver takes no program.
        ip("link add none0 type bridge");
        let datapath = asking_for_the_edge();
        for (mode, uplink, expected) in [
            (XdpMode::Native, "up0", Some("XDP native")),
            // And after an agent that was told otherwise.
            (XdpMode::Auto, "up0", Some("XDP generic")),
            (XdpMode::Generic, "up0", Some("XDP generic")),
            (XdpMode::Off, "up0", None),
            (XdpMode::Auto, "none0", Some("XDP generic")),
            (XdpMode::Off, "none0", None),
        ] {
            let options = Options { xdp_mode: mode, ..options.clone() };
            let mut kernel = Kernel::open(object, &options).unwrap();
            let ifindex = kernel.attach_uplink(uplink).unwrap();
            kernel.commit(&datapath, &BTreeMap::new()).unwrap();
            let is_attached = kernel.attached().any(|attached| attached == (ifindex, Program::Edge));
            let found = is_attached.then(|| kernel.attached_by(Program::Edge));
            assert_eq!((found.as_deref(), kernel.edge_refused()), (expected, None), "{mode:?} at {uplink}");
            assert_eq!(kernel.verify().unwrap(), []);
        }
    });
}

#[test]
fn why_the_edge_is_not_attached_is_known_until_nobody_asks_for_it() {
    in_namespace(|object, options| {
        ip("link add none0 type bridge");
        let options = Options { xdp_mode: XdpMode::Native, ..options.clone() };
        let mut kernel = Kernel::open(object, &options).unwrap();
        kernel.attach_uplink("none0").unwrap();
        let (plain, asking) = (datapath(), asking_for_the_edge());
        for (datapath, refused) in [(&plain, false), (&asking, true), (&plain, false)] {
            kernel.commit(datapath, &BTreeMap::new()).unwrap();
            assert_eq!(kernel.edge_refused().is_some(), refused, "{:?}", kernel.edge_refused());
            assert!(kernel.edge_refused().is_none_or(|why| why.contains("none0")));
            assert!(kernel.attached().all(|(_, program)| program != Program::Edge));
        }
    });
}

fn tc(arguments: &str) {
    let status = Command::new("tc").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "tc {arguments}");
}
