//! The rules that kube-proxy would write for a cluster: the shape of its nftables mode and of its iptables
//! mode, chain by chain, for services whose traffic goes to any of their endpoints.

use std::{fmt::Write as _, net::Ipv4Addr};

/// A port of a service.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    /// Name of the service, in the namespace `bench`.
    pub(crate) name: String,
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// Its cluster address.
    pub(crate) address: Ipv4Addr,
    /// Its port.
    pub(crate) port: u16,
    /// Its port on every node, 0 for none.
    pub(crate) node_port: u16,
    /// Addresses of its endpoints.
    pub(crate) endpoints: Vec<Ipv4Addr>,
    /// Their port.
    pub(crate) target: u16,
}

/// What both modes have to know of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster<'a> {
    /// The node's address.
    pub(crate) node: Ipv4Addr,
    /// Where pods' addresses come from.
    pub(crate) pods: &'a str,
    /// Where services' addresses come from.
    pub(crate) services: &'a str,
    /// Its services.
    pub(crate) ports: &'a [ServicePort],
}

impl Cluster<'_> {
    /// For `nft -f -`.
    pub(crate) fn nftables(&self) -> String {
        let mut text = String::from(NFTABLES);
        let _ = writeln!(text, "add element ip kube-proxy nodeport-ips {{ {} }}", self.node);
        let _ =
            writeln!(text, "add rule ip kube-proxy cluster-ips-check ip daddr {{ {} }} drop", self.services);
        for port in self.ports {
            self.nftables_port(&mut text, port);
        }
        text
    }

    fn nftables_port(&self, text: &mut String, port: &ServicePort) {
        let ServicePort { name, protocol, address, port: number, node_port, endpoints, target } = port;
        let id = format!("{}-bench/{name}/{protocol}/p", hash(&[name, protocol]));
        let service = format!("service-{id}");
        let mut put = |line: String| {
            let _ = writeln!(text, "add {line}");
        };
        let endpoint = |endpoint: &Ipv4Addr| format!("endpoint-{id}__{endpoint}/{target}");
        for address in endpoints {
            put(format!("chain ip kube-proxy {}", endpoint(address)));
        }
        put(format!("chain ip kube-proxy {service}"));
        put(format!(
            "rule ip kube-proxy {service} ip daddr {address} ip saddr != {} jump mark-for-masquerade",
            self.pods
        ));
        let choices: Vec<_> =
            endpoints.iter().enumerate().map(|(n, to)| format!("{n} : goto {}", endpoint(to))).collect();
        put(format!(
            "rule ip kube-proxy {service} numgen random mod {} vmap {{ {} }}",
            endpoints.len(),
            choices.join(" , ")
        ));
        for address in endpoints {
            let chain = endpoint(address);
            put(format!("rule ip kube-proxy {chain} ip saddr {address} jump mark-for-masquerade"));
            put(format!("rule ip kube-proxy {chain} meta l4proto {protocol} dnat to {address}:{target}"));
        }
        put(format!("element ip kube-proxy cluster-ips {{ {address} }}"));
        put(format!(
            "element ip kube-proxy service-ips {{ {address} . {protocol} . {number} : goto {service} }}"
        ));
        if *node_port != 0 {
            put(format!("chain ip kube-proxy external-{id}"));
            put(format!("rule ip kube-proxy external-{id} jump mark-for-masquerade"));
            put(format!("rule ip kube-proxy external-{id} goto {service}"));
            put(format!(
                "element ip kube-proxy service-nodeports {{ {protocol} . {node_port} : goto external-{id} }}"
            ));
        }
    }

    /// For `iptables-restore`.
    pub(crate) fn iptables(&self) -> String {
        let mut chains = String::new();
        let mut rules = String::new();
        for port in self.ports {
            self.iptables_port(&mut chains, &mut rules, port);
        }
        let last = format!(
            "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -d {} -j KUBE-NODEPORTS\n",
            self.node
        );
        [
            IPTABLES_FILTER,
            IPTABLES_NAT,
            &chains,
            IPTABLES_HOOKS,
            &rules,
            IPTABLES_MASQUERADE,
            &last,
            "COMMIT\n",
        ]
        .concat()
    }

    fn iptables_port(&self, chains: &mut String, rules: &mut String, port: &ServicePort) {
        let ServicePort { name, protocol, address, port: number, node_port, endpoints, target } = port;
        let full = format!("bench/{name}:p");
        let id = hash(&[name, protocol]);
        let service = format!("KUBE-SVC-{id}");
        let _ = writeln!(chains, ":{service} - [0:0]");
        let mut put = |chain: &str, comment: &str, rest: String| {
            let _ = writeln!(rules, "-A {chain} -m comment --comment \"{comment}\" {rest}");
        };
        let cluster_ip = format!("{full} cluster IP");
        let matches = format!("-m {protocol} -p {protocol} -d {address} --dport {number}");
        put("KUBE-SERVICES", &cluster_ip, format!("{matches} -j {service}"));
        put(&service, &cluster_ip, format!("{matches} ! -s {} -j KUBE-MARK-MASQ", self.pods));
        if *node_port != 0 {
            let external = format!("KUBE-EXT-{id}");
            let _ = writeln!(chains, ":{external} - [0:0]");
            put(&external, &format!("masquerade {full}"), "-j KUBE-MARK-MASQ".to_owned());
            put(&external, &full, format!("-j {service}"));
            put(
                "KUBE-NODEPORTS",
                &full,
                format!("-m {protocol} -p {protocol} --dport {node_port} -j {external}"),
            );
        }
        for (number, endpoint) in endpoints.iter().enumerate() {
            let chain = format!("KUBE-SEP-{}", hash(&[name, protocol, &endpoint.to_string()]));
            let _ = writeln!(chains, ":{chain} - [0:0]");
            let to = format!("{full} -> {endpoint}:{target}");
            let left = endpoints.len() - number;
            let chance = match left {
                1 => String::new(),
                _ => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            put(&service, &to, format!("{chance}-j {chain}"));
            put(&chain, &full, format!("-s {endpoint} -j KUBE-MARK-MASQ"));
            put(
                &chain,
                &full,
                format!("-m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}:{target}"),
            );
        }
    }
}

/// Sixteen characters that name a thing, as kube-proxy has them: FNV-1a in base 32.
fn hash(parts: &[&str]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
    });
    (0..16)
        .map(|at| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(hash >> (at * 5)) as usize & 31]))
        .collect()
}

const NFTABLES: &str = "\
add table ip kube-proxy
add set ip kube-proxy cluster-ips { type ipv4_addr ; }
add set ip kube-proxy nodeport-ips { type ipv4_addr ; }
add map ip kube-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add chain ip kube-proxy filter-prerouting-pre-dnat { type filter hook prerouting priority -110 ; }
add chain ip kube-proxy filter-output-pre-dnat { type filter hook output priority -110 ; }
add chain ip kube-proxy filter-input { type filter hook input priority 0 ; }
add chain ip kube-proxy filter-forward { type filter hook forward priority 0 ; }
add chain ip kube-proxy filter-output { type filter hook output priority 0 ; }
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain ip kube-proxy nat-output { type nat hook output priority -100 ; }
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100 ; }
add chain ip kube-proxy cluster-ips-check
add chain ip kube-proxy firewall-check
add chain ip kube-proxy mark-for-masquerade
add chain ip kube-proxy masquerading
add chain ip kube-proxy nodeport-endpoints-check
add chain ip kube-proxy reject-chain
add chain ip kube-proxy services
add chain ip kube-proxy service-endpoints-check
add rule ip kube-proxy filter-prerouting-pre-dnat ct state new jump firewall-check
add rule ip kube-proxy filter-output-pre-dnat ct state new jump firewall-check
add rule ip kube-proxy filter-input ct state new jump nodeport-endpoints-check
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump cluster-ips-check
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add rule ip kube-proxy mark-for-masquerade meta mark set meta mark or 0x4000
add rule ip kube-proxy masquerading meta mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading meta mark set meta mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add rule ip kube-proxy reject-chain reject
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
";

const IPTABLES_FILTER: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const IPTABLES_NAT: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
";

const IPTABLES_HOOKS: &str = "\
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
";

const IPTABLES_MASQUERADE: &str = "\
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
";

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(ports: &[ServicePort]) -> Cluster<'_> {
        Cluster { node: [192, 0, 2, 1].into(), pods: "10.244.0.0/16", services: "10.96.0.0/16", ports }
    }

    fn port() -> ServicePort {
        ServicePort {
            name: "web".to_owned(),
            protocol: "tcp",
            address: [10, 96, 0, 1].into(),
            port: 80,
            node_port: 30080,
            endpoints: vec![[10, 244, 1, 1].into(), [10, 244, 1, 2].into()],
            target: 8080,
        }
    }

    #[test]
    fn every_endpoint_has_a_chain_that_is_reached() {
        let ports = [port()];
        let (nftables, iptables) = (cluster(&ports).nftables(), cluster(&ports).iptables());
        for endpoint in &ports[0].endpoints {
            let chain = format!("__{endpoint}/8080");
            // Declared, chosen, and two rules in it.
            assert_eq!(nftables.matches(&chain).count(), 4, "{nftables}");
            assert!(iptables.contains(&format!("--to-destination {endpoint}:8080")), "{iptables}");
        }
        assert_eq!(iptables.matches("--probability 0.5000000000").count(), 1, "the last takes what is left");
    }

    #[test]
    fn names_of_chains_differ() {
        assert_ne!(hash(&["a", "bc"]), hash(&["ab", "c"]));
    }
}
