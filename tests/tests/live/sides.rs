//! Interfaces and addresses that a pod makes for itself, being root in its namespace (attack test 37).

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use weir_tests::live::{Live, isolated, manifests, netns};

const PORT: u16 = 9000;
const PATIENCE: Duration = Duration::from_millis(200);

fn listen(live: &Live, pod: &str) -> UdpSocket {
    let socket = netns::within(live.netns(pod), || Ok(UdpSocket::bind(("::", PORT))?)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether datagrams arrive that `denied` sends from an address.
fn arrive(live: &Live, source: IpAddr, to: SocketAddr, listener: &UdpSocket) -> bool {
    let sender = netns::within(live.netns("denied"), || Ok(UdpSocket::bind((source, 0))?)).unwrap();
    (0..5).any(|_| {
        sender.send_to(b"hello", to).unwrap();
        let from = listener.recv_from(&mut [0; 16]).ok().map(|(_, from)| from.ip().to_canonical());
        assert!(from.is_none_or(|from| from == source), "{from:?}");
        from.is_some()
    })
}

/// From the address of `far`, which is on `device` of `denied`, nothing reaches the server, which lets `far` in. From
/// its own it reaches `client` by the same device.
fn check(live: &Live, device: &str) {
    let lines: Vec<_> = live
        .at("far", PORT)
        .iter()
        .map(|far| far.ip())
        .map(|address| match address {
            IpAddr::V4(_) => format!("address add {address}/32 dev {device}"),
            IpAddr::V6(_) => format!("address add {address}/128 dev {device} nodad"),
        })
        .collect();
    netns::ip(Some(live.netns("denied")), &lines).unwrap();
    let (server, client) = (listen(live, "server"), listen(live, "client"));
    for family in 0..2 {
        let [own, far] = ["denied", "far"].map(|pod| live.at(pod, PORT)[family].ip());
        let [server_at, client_at] = ["server", "client"].map(|pod| live.at(pod, PORT)[family]);
        // First what is legal, for the way to the gateway to be known: under another's address nobody would say it.
        assert!(arrive(live, own, client_at, &client), "{client_at} from {own} by {device}");
        assert!(!arrive(live, far, server_at, &server), "{server_at} from {far} by {device}");
        assert!(!arrive(live, far, client_at, &client), "{client_at} from {far} by {device}");
    }
    assert_eq!(live.reaches("far", &["server"]), ["server"], "whose address it is");
}

#[test]
fn an_address_that_a_pod_gives_itself_is_not_its_own() {
    isolated(|| check(&Live::start(&manifests::cluster()), "eth0"));
}

#[test]
fn an_interface_that_a_pod_makes_is_no_way_round() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        // A bridge with a MAC address of its own, of which the pod's one wire becomes a port.
        let interface = live.pod("denied").interface.clone().unwrap();
        let link = live.command("node-1", "ip", &["-brief", "link", "show", "dev", &interface]);
        let mac = link.split_whitespace().nth(2).expect("name, state, address");
        let lines = [
            "link add name side address 02:00:00:00:77:77 type bridge",
            "link set side up",
            "link set eth0 master side",
        ];
        netns::ip(Some(live.netns("denied")), &lines.map(str::to_owned)).unwrap();
        for (family, gateway) in ["169.254.1.1", "fe80::1"].into_iter().enumerate() {
            let family_of = if family == 0 { "-4" } else { "-6" };
            live.command(
                "denied",
                "ip",
                &["neighbour", "replace", gateway, "lladdr", mac, "dev", "side", "nud", "permanent"],
            );
            for pod in ["server", "client"] {
                let to = live.at(pod, PORT)[family].ip().to_string();
                live.command(
                    "denied",
                    "ip",
                    &[family_of, "route", "replace", &to, "via", gateway, "dev", "side", "onlink"],
                );
            }
        }
        check(&live, "side");
    });
}
