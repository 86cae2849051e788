//! What is kept, against the running kernel: needs root.

use std::{
    fs::File,
    io::Write as _,
    os::fd::AsRawFd as _,
    process::{self, Stdio},
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
};

use super::*;

const FIRST: &str = "02:00:00:00:00:01";
const SECOND: &str = "02:00:00:00:00:02";

/// A host and a pod, each in a namespace of its own, joined by the veth pair `pod0`/`eth0`.
struct Pair {
    host: File,
    pod: File,
}

impl Pair {
    /// Runs a test in the host's namespace.
    fn with(test: impl FnOnce(&Self) + Send + 'static) {
        let in_namespaces = || {
            if let Err(Errno::EPERM) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: only root makes network namespaces");
                return;
            }
            let here = || File::open("/proc/thread-self/ns/net").unwrap();
            let pod = here();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let pair = Self { host: here(), pod };
            let pod = format!("/proc/{}/fd/{}", process::id(), pair.pod.as_raw_fd());
            ip(&format!("link add pod0 type veth peer name eth0 address {FIRST} netns {pod}"));
            ip("link add other0 type veth peer name other1");
            test(&pair);
        };
        thread::spawn(in_namespaces).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn in_pod(&self, commands: &str) {
        setns(&self.pod, CloneFlags::CLONE_NEWNET).unwrap();
        ip(commands);
        setns(&self.host, CloneFlags::CLONE_NEWNET).unwrap();
    }
}

/// Runs commands of ip(8), one a line.
fn ip(commands: &str) {
    let mut ip = process::Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "ip {commands}");
}

impl Netlink {
    /// Of a network that has been still for long.
    fn settled() -> Self {
        let mut netlink = Self::connect().unwrap();
        netlink.memory = Memory::new(Instant::now().checked_sub(Duration::from_secs(60)).unwrap());
        netlink
    }

    fn ask(&mut self, interface: &str) -> String {
        let ifindex = self.snapshot().unwrap().links[interface];
        self.peer_mac(ifindex, &[]).unwrap().unwrap().to_string()
    }
}

#[test]
fn nothing_is_read_again_while_the_network_is_still() {
    Pair::with(|_| {
        let mut netlink = Netlink::settled();
        assert_eq!(netlink.ask("pod0"), FIRST);
        let before = netlink.snapshot().unwrap();
        assert!(netlink.memory.mac(before.links["pod0"]).is_some());

        assert!(Arc::ptr_eq(&before, &netlink.snapshot().unwrap()));
    });
}

#[test]
fn whatever_changes_on_the_host_is_noticed_at_once() {
    Pair::with(|_| {
        type IsSeen = fn(&Snapshot) -> bool;
        const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        ip("link set other0 up\nlink set other1 up\n");
        let changes: [(&str, IsSeen); 4] = [
            ("address add 192.0.2.1/24 dev other0", |now| now.addresses.contains_key(&ADDRESS)),
            ("route add 192.0.2.7/32 dev other0", |now| now.host_routes.len() == 1),
            ("link set other0 name other2", |now| now.links.contains_key("other2")),
            ("link delete other2", |now| now.host_routes.is_empty() && !now.links.contains_key("other2")),
        ];
        for (change, seen) in changes {
            let mut netlink = Netlink::settled();
            assert!(!seen(&netlink.snapshot().unwrap()), "{change}: not yet");

            ip(change);

            let now = netlink.snapshot().unwrap();
            assert!(seen(&now), "{change}: {now:?}");
        }
    });
}

#[test]
fn another_mac_address_in_a_pods_namespace_is_noticed_at_once() {
    Pair::with(|pair| {
        let mut netlink = Netlink::settled();
        assert_eq!(netlink.ask("pod0"), FIRST);

        pair.in_pod(&format!("link set eth0 address {SECOND}"));

        assert_eq!(netlink.ask("pod0"), SECOND);
    });
}

#[test]
fn what_is_paired_with_an_interface_of_the_same_number_is_asked_anew() {
    Pair::with(|pair| {
        let mut netlink = Netlink::settled();
        assert_eq!(netlink.ask("pod0"), FIRST);
        let ifindex = netlink.snapshot().unwrap().links["pod0"];

        ip("link delete pod0");
        let pod = format!("/proc/{}/fd/{}", process::id(), pair.pod.as_raw_fd());
        ip(&format!("link add pod0 index {ifindex} type veth peer name eth0 address {SECOND} netns {pod}"));

        assert_eq!(netlink.snapshot().unwrap().links["pod0"], ifindex);
        assert_eq!(netlink.ask("pod0"), SECOND);
    });
}

#[test]
fn an_other_end_that_moves_to_another_namespace_is_still_listened_to() {
    Pair::with(|pair| {
        let mut netlink = Netlink::settled();
        assert_eq!(netlink.ask("pod0"), FIRST);

        // Here, where it is a neighbour, and back.
        pair.in_pod(&format!("link set eth0 netns /proc/{}/fd/{}", process::id(), pair.host.as_raw_fd()));
        assert_eq!(netlink.ask("pod0"), FIRST);
        ip(&format!("link set eth0 address {SECOND}"));

        assert_eq!(netlink.ask("pod0"), SECOND);
    });
}

#[test]
fn a_mac_address_is_asked_anew_when_announcements_were_lost() {
    Pair::with(|pair| {
        let mut netlink = Netlink::settled();
        assert_eq!(netlink.ask("pod0"), FIRST);
        // More than there is room for, of an interface that is none of ours. Of one that is down none is announced.
        pair.in_pod("link set lo up");
        let renamed: String = (0..2000).map(|number| format!("link set lo alias a{number}\n")).collect();
        pair.in_pod(&renamed);
        pair.in_pod(&format!("link set eth0 address {SECOND}"));

        assert_eq!(netlink.ask("pod0"), SECOND);
        pair.in_pod(&format!("link set eth0 address {FIRST}"));
        assert_eq!(netlink.ask("pod0"), FIRST, "after that, too");
    });
}
