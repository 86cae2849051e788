//! The rules that an API server has for each kind.

use weir::{
    cluster::{PeerKind, PortMatch, Protocol, Tier},
    manifest::{self, Kind},
};

use super::{assert_each, cluster, cluster_policy, errors, object, pod, policy, read, service};

#[test]
fn names_have_the_form_of_their_kind() {
    assert_each(&[
        (object("v1", "Namespace", "a.b", ""), "metadata.name: `a.b` is not a DNS label"),
        (object("v1", "Node", "a.b", ""), ""),
        (service("1web", "{clusterIP: None}"), "metadata.name: `1web` is not a service name"),
        ("{apiVersion: v1, kind: Namespace}".into(), "metadata is required"),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {generateName: a-}}".into(),
            "metadata.name is required",
        ),
        (
            object("v1", "Namespace", "a, namespace: b", ""),
            "metadata.namespace: a Namespace has no namespace",
        ),
        (object("v1", "Pod", "a, namespace: B", "spec: {}"), "metadata.namespace: `B` is not"),
        (object("v1", "Pod", "'a, annotations: {a b: x}", "spec: {}").replace('\'', ""), "an annotation key"),
    ]);
}

#[test]
fn what_others_keep_in_metadata_and_status_is_known_by_name() {
    let metadata = "{name: a, uid: x, resourceVersion: '1', generation: 1, creationTimestamp: null, selfLink: '', finalizers: [a], deletionGracePeriodSeconds: 0, ownerReferences: [{apiVersion: v1, kind: Node, name: n, uid: u, controller: true, blockOwnerDeletion: true}], managedFields: [{manager: m, operation: Update, apiVersion: v1, time: t, fieldsType: FieldsV1, fieldsV1: {'f:a': {}}, subresource: s}]}";
    let status = "{loadBalancer: {}, conditions: [{type: A, status: 'True', reason: r, message: m, lastTransitionTime: t, observedGeneration: 1}]}";
    let spec = "{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{port: 80, appProtocol: kubernetes.io/h2c, targetPort: web}], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, internalTrafficPolicy: Cluster, sessionAffinity: None, trafficDistribution: PreferClose, selector: {}, type: ClusterIP}";
    read(&format!("{{apiVersion: v1, kind: Service, metadata: {metadata}, spec: {spec}, status: {status}}}"));
    let said = errors(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {}}}",
        metadata.replace("manager:", "manger:")
    ));
    assert!(
        said[0].contains(
            "unknown field `manger` in Namespace.metadata.managedFields[0]; did you mean `manager`?"
        )
    );
}

#[test]
fn a_network_policy_has_the_defaults_of_the_api() {
    let text = policy(
        "{podSelector: {}, egress: [{to: [], ports: [{}, {port: web, protocol: UDP}, {port: 1, endPort: 9}]}]}",
    );
    let cluster = cluster(&text);
    let policy = cluster.policies.values().next().unwrap();
    assert!(policy.isolates_ingress && policy.isolates_egress);
    let rule = &policy.egress[0];
    assert!(rule.peers.is_none());
    let ports: Vec<_> =
        rule.ports.iter().flatten().map(|port| (port.protocol.unwrap(), port.ports.clone())).collect();
    let expected = [
        (Protocol::Tcp, PortMatch::All),
        (Protocol::Udp, PortMatch::Named("web".into())),
        (Protocol::Tcp, PortMatch::Range(1, 9)),
    ];
    assert_eq!(ports, expected);
    assert_eq!((rule.source.line, rule.source.column), (5, 34));
}

#[test]
fn network_policies_are_checked_in_every_part() {
    let ingress = |rule: &str| policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
    assert_each(&[
        (policy("{policyTypes: [Ingress, Egress, Ingress]}"), "spec.policyTypes: has 3 items"),
        (policy("{policyTypes: Ingress}"), "spec.policyTypes: expected a list"),
        (policy("{ingress: [{to: []}]}"), "unknown field `to` in NetworkPolicy.spec.ingress[0]"),
        (policy("{podSelector: {matchLabels: {a: [b]}}}"), "matchLabels.a: expected a string, found a list"),
        (policy("{podSelector: {matchExpressions: [{operator: Exists}]}}"), "key is required"),
        (policy("{podSelector: {matchExpressions: [{key: a, operator: In, values: ['a b']}]}}"), "values[0]"),
        (ingress("{ports: [{port: 0}]}"), "port: 0 is not a port"),
        (ingress("{ports: [{port: 080}]}"), "port: `080` is not a port"),
        (ingress("{ports: [{port: 8.5}]}"), "port: `8.5` is not a port"),
        (ingress("{ports: [{port: ''}]}"), "port: `` is not a port name"),
        (ingress("{ports: [{port: true}]}"), "port: expected a number"),
        (ingress("{ports: [{protocol: ICMP}]}"), "protocol: unsupported value `ICMP`"),
        (ingress("{ports: [{protocol: ''}]}"), "protocol: unsupported value"),
        (ingress("{ports: [{port: 80, endPort: '90'}]}"), "endPort: expected a number"),
        (ingress("{ports: [null]}"), "ports[0]: expected an object, found null"),
        (ingress("{from: [{ipBlock: {}}]}"), "ipBlock.cidr is required"),
        (ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}"), "except[0]"),
        (ingress("{from: [{ipBlock: {cidr: 'fd00::/8', except: ['fd00::/16']}}]}"), ""),
        (ingress("{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}"), "IPv4 address in IPv6 form"),
        (ingress("{from: [{podSelector: {}, ipBlock: null}]}"), ""),
        (ingress("{from: [{namespaceSelector: {matchlabels: {}}}]}"), "did you mean `matchLabels`?"),
    ]);
}

#[test]
fn host_bits_of_a_block_are_cleared() {
    let cluster = cluster(&policy("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}"));
    let peers = cluster.policies.values().next().unwrap().egress[0].peers.clone().unwrap();
    assert_eq!(peers[0].kind, PeerKind::Block { cidr: "10.0.0.0/8".parse().unwrap(), except: vec![] });
}

#[test]
fn cluster_policies_are_checked_in_every_part() {
    let with = |rest: &str| {
        cluster_policy(&format!("{{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, {rest}}}"))
    };
    let egress = |rest: &str| with(&format!("egress: [{{action: Deny, {rest}}}]"));
    let protocol = |port: &str| egress(&format!("to: [{{namespaces: {{}}}}], protocols: [{port}]"));
    let many = |item: &str, count: usize| vec![item; count].join(", ");
    assert_each(&[
        (cluster_policy("{priority: 1, subject: {namespaces: {}}}"), "spec.tier is required"),
        (cluster_policy("{tier: Admin, subject: {namespaces: {}}}"), "spec.priority is required"),
        (cluster_policy("{tier: Admin, priority: 1}"), "spec.subject is required"),
        (cluster_policy("{tier: admin, priority: 1, subject: {namespaces: {}}}"), "spec.tier: unsupported"),
        (
            cluster_policy("{tier: Admin, priority: 1001, subject: {namespaces: {}}}"),
            "spec.priority: 1001 is not a priority (0-1000)",
        ),
        (cluster_policy("{tier: Baseline, priority: 1000, subject: {pods: {podSelector: {}}}}"), ""),
        (
            cluster_policy("{tier: Admin, priority: 1, subject: {}}"),
            "spec.subject: one of namespaces, pods is required",
        ),
        (
            cluster_policy("{tier: Admin, priority: 1, subject: {pods: {}}}"),
            "spec.subject.pods.podSelector is required",
        ),
        (object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "c", ""), "spec is required"),
        (with("ingress: [{action: Allow, from: [{namespaces: {}}]}]"), "action: unsupported value `Allow`"),
        (with("ingress: [{action: Deny, from: []}]"), "from: at least one item"),
        (with("ingress: [{action: Deny, from: [{}]}]"), "from[0]: one of"),
        (with("ingress: [{action: Deny, from: [{nodes: {}}]}]"), "from[0].nodes: only an egress rule"),
        (with("ingress: [{action: Deny, from: [{namespace: {}}]}]"), "did you mean `namespaces`?"),
        (
            with(&format!("ingress: [{}]", many("{action: Deny, from: [{namespaces: {}}]}", 26))),
            "spec.ingress: has 26 items",
        ),
        (with(&format!("ingress: [{}]", many("{action: Deny, from: [{namespaces: {}}]}", 25))), ""),
        (egress(&format!("to: [{}]", many("{namespaces: {}}", 26))), "to: has 26 items"),
        (egress("to: [{domainNames: [example.com]}]"), "domainNames: domain names are not supported"),
        (egress("to: [{networks: []}]"), "networks: at least one item"),
        (egress("to: [{networks: [10.0.0.0/8]}, {nodes: {}}]"), ""),
        (
            egress("to: [{nodes: {}}], protocols: [{destinationNamedPort: web}]"),
            "destinationNamedPort: may not",
        ),
        (protocol("{destinationNamedPort: web}"), ""),
        (protocol("{tcp: {destinationPort: {number: 65536}}}"), "number: 65536 is not a port"),
        (protocol("{tcp: {destinationPort: {}}}"), "destinationPort: one of number, range is required"),
        (
            protocol("{tcp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}"),
            "only one of number, range",
        ),
        (
            protocol("{udp: {destinationPort: {range: {start: 2, end: 2}}}}"),
            "start 2 must be less than end 2",
        ),
        (protocol("{sctp: {destinationPort: {range: {start: 2}}}}"), "range.end is required"),
        (protocol("{sctp: {destinationPort: {range: {start: 2, end: 3}}}}"), ""),
        (protocol("{icmp: {}}"), "protocols[0]"),
        (protocol(&many("{tcp: {destinationPort: {number: 1}}}", 26)), "protocols: has 26 items"),
    ]);
    assert_eq!(cluster(&with("ingress: []")).cluster_policies["c"].tier, Tier::Admin);
}

#[test]
fn a_peer_of_a_later_version_is_kept_with_a_warning() {
    let text = cluster_policy(
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{futurePeer: {}}]}]}",
    );
    assert_eq!(read(&text).warnings.warnings(), 1);
}

#[test]
fn services_are_checked_in_every_part() {
    let typed = |kind: &str, rest: &str| {
        service("s", &format!("{{type: {kind}, clusterIP: 10.96.0.1, ports: [{{port: 80}}], {rest}}}"))
    };
    let ports =
        |ports: &str| service("s", &format!("{{type: NodePort, clusterIP: 10.96.0.1, ports: [{ports}]}}"));
    let with_ip = |ips: &str| service("s", &format!("{{ports: [{{port: 80}}], {ips}}}"));
    assert_each(&[
        (object("v1", "Service", "s", ""), "spec is required"),
        (service("s", "{clusterIP: 10.96.0.1}"), "spec.ports is required"),
        (service("s", "{clusterIP: None}"), ""),
        (service("s", "{type: ExternalName, externalName: example.com.}"), ""),
        (service("s", "{type: ExternalName}"), "spec.externalName is required"),
        (
            service("s", "{type: ExternalName, externalName: 'a b'}"),
            "spec.externalName: `a b` is not a DNS name",
        ),
        (typed("Nodeport", ""), "spec.type: unsupported value `Nodeport`"),
        (with_ip("clusterIP: 10.96.0"), "spec.clusterIP: `10.96.0` is not an IP address"),
        (with_ip("clusterIP: 127.0.0.1"), "spec.clusterIP: 127.0.0.1 is a loopback address"),
        (with_ip("clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2]"), "spec.clusterIP: differs from the first"),
        (with_ip("clusterIPs: [10.96.0.1, 10.96.0.2]"), "spec.clusterIPs[1]: the same address family"),
        (with_ip("clusterIPs: [10.96.0.1, 'fd00::1']"), ""),
        (with_ip("clusterIPs: [10.96.0.1, 'fd00::1', 'fd00::2']"), "clusterIPs"),
        (with_ip("clusterIPs: [None, 'fd00::1']"), "spec.clusterIPs[1]: may not be set beside None"),
        (with_ip("clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilyPolicy: SingleStack"), "allows one clusterIP"),
        (with_ip("clusterIPs: [10.96.0.1], ipFamilies: [IPv6]"), "is not of the family IPv6"),
        (with_ip("clusterIP: 10.96.0.1, ipFamilies: [IPv5]"), "spec.ipFamilies[0]: unsupported"),
        (service("s", "{type: LoadBalancer, clusterIP: None, ports: [{port: 1}]}"), "None is possible only"),
        (ports("{port: 80}, {port: 81, name: b}"), "spec.ports[0].name is required"),
        (
            ports("{port: 80, name: a}, {port: 81, name: a}"),
            "spec.ports[1].name: the same name as spec.ports[0].name",
        ),
        (ports("{port: 80, name: a}, {port: 80, name: b}"), "spec.ports[1]: the same port as spec.ports[0]"),
        (ports("{port: 80, name: a}, {port: 80, name: b, protocol: UDP}"), ""),
        (
            ports("{port: 80, name: a, nodePort: 30000}, {port: 81, name: b, nodePort: 30000}"),
            "the same nodePort",
        ),
        (ports("{port: 80, name: a.b}"), "spec.ports[0].name: `a.b` is not a DNS label"),
        (ports("{port: 80, nodePort: 70000}"), "nodePort: 70000 is not a port"),
        (ports("{port: 80, nodePort: 0}"), ""),
        (ports("{port: 80, targetPort: 70000}"), "targetPort: 70000 is not a port"),
        (ports("{port: 80, targetPort: Web}"), "targetPort: `Web` is not a port name"),
        (ports("{port: 80, appProtocol: 'a b'}"), "appProtocol"),
        (ports("{name: a}"), "spec.ports[0].port is required"),
        (typed("ClusterIP", "selector: {'a b': c}"), "spec.selector[a b]"),
        (
            service("s", "{clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30000}]}"),
            "spec.ports[0].nodePort: only",
        ),
        (service("s", "{type: LoadBalancer, clusterIP: 10.96.0.1, ports: [{port: 10250}]}"), "kubelet"),
        (typed("ClusterIP", "externalIPs: [127.0.0.1]"), "spec.externalIPs[0]: 127.0.0.1 is a loopback"),
        (typed("ClusterIP", "externalIPs: ['fe80::1']"), "link-local"),
        (
            typed(
                "ClusterIP",
                "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            ),
            "timeoutSeconds: 86401 is not a timeout (1-86400)",
        ),
        (
            typed("ClusterIP", "sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}"),
            "only with sessionAffinity",
        ),
        (typed("ClusterIP", "sessionAffinity: ClientIp"), "spec.sessionAffinity: unsupported"),
        (typed("ClusterIP", "internalTrafficPolicy: local"), "spec.internalTrafficPolicy: unsupported"),
        (typed("NodePort", "externalTrafficPolicy: Locals"), "spec.externalTrafficPolicy: unsupported"),
        (typed("NodePort", "healthCheckNodePort: 30000"), "spec.healthCheckNodePort: only"),
        (typed("ClusterIP", "loadBalancerSourceRanges: [10.0.0.0/8]"), "spec.loadBalancerSourceRanges: only"),
        (typed("LoadBalancer", "loadBalancerSourceRanges: [' 10.0.0.0/8 ']"), ""),
        (typed("LoadBalancer", "loadBalancerSourceRanges: [10.0.0.0]"), "loadBalancerSourceRanges[0]"),
        (typed("ClusterIP", "loadBalancerClass: a"), "spec.loadBalancerClass: only"),
        (typed("ClusterIP", "trafficDistribution: Near"), "spec.trafficDistribution: unsupported"),
        (typed("ClusterIP", "publishNotReadyAddresses: 1"), "expected true or false"),
        (
            typed("ClusterIP", "") + "status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}",
            "status.loadBalancer.ingress[0]: only",
        ),
        (
            typed("LoadBalancer", "") + "status: {loadBalancer: {ingress: [{ipMode: VIP}]}}",
            "ipMode: may be set only with ip",
        ),
        (
            typed("LoadBalancer", "") + "status: {loadBalancer: {ingress: [{ip: 203.0.113.1, ipMode: vip}]}}",
            "ipMode: unsupported",
        ),
    ]);
}

#[test]
fn a_service_has_the_defaults_of_the_api() {
    let text = service(
        "s",
        "{type: LoadBalancer, clusterIP: 10.96.0.1, sessionAffinity: ClientIP, ports: [{port: 80}], externalIPs: [203.0.113.1, 203.0.113.1]}",
    ) + "status: {loadBalancer: {ingress: [{ip: 203.0.113.2}, {ip: 203.0.113.3, ipMode: Proxy}, {hostname: lb.example}]}}";
    let cluster = cluster(&text);
    let service = cluster.services.values().next().unwrap();
    assert_eq!(service.affinity, Some(10_800));
    assert_eq!(service.load_balancer_ips, ["203.0.113.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.external_ips.len(), 1);
    assert_eq!(service.ports[0].protocol, Protocol::Tcp);
    assert!(!service.external_local && !service.internal_local && service.selector.is_none());
}

#[test]
fn slices_are_checked_in_every_part() {
    let slice = |rest: &str| object("discovery.k8s.io/v1", "EndpointSlice", "e", rest);
    let endpoint =
        |rest: &str| slice(&format!("addressType: IPv4\nendpoints: [{{addresses: [10.0.0.1], {rest}}}]"));
    let address = |kind: &str, address: &str| {
        slice(&format!("addressType: {kind}\nendpoints: [{{addresses: ['{address}']}}]"))
    };
    let ports = |ports: &str| slice(&format!("addressType: IPv4\nports: [{ports}]"));
    assert_each(&[
        (slice("endpoints: []"), "addressType is required"),
        (slice("addressType: IP"), "addressType: unsupported value `IP`"),
        (slice("addressType: IPv4\nendpoints: [{}]"), "endpoints[0].addresses is required"),
        (slice("addressType: IPv4\nendpoints: [{addresses: []}]"), "at least one address"),
        (address("IPv4", "fd00::1"), "endpoints[0].addresses[0]: fd00::1 is not an IPv4 address"),
        (address("IPv6", "10.0.0.1"), "is not an IPv6 address"),
        (address("IPv6", "fd00::1"), ""),
        (address("IPv4", "127.0.0.1"), "loopback"),
        (address("IPv6", "fe80::1"), "link-local"),
        (address("IPv4", "224.0.0.1"), "multicast"),
        (address("FQDN", "example.com"), ""),
        (address("FQDN", "exa mple"), "is not a DNS name"),
        (endpoint("conditions: {ready: null, serving: false, terminating: true}"), ""),
        (endpoint("conditions: {Ready: true}"), "did you mean `ready`?"),
        (endpoint("conditions: {ready: 'true'}"), "ready: expected true or false, found a string"),
        (endpoint("hostname: A"), "hostname"),
        (endpoint("nodeName: A"), "nodeName"),
        (endpoint("targetRef: {kind: Pod, name: a, namespace: b, uid: c}"), ""),
        (endpoint("hints: {forZones: [{name: a}, {name: a}]}"), "forZones[1]: the same name"),
        (endpoint("hints: {forNodes: [{}]}"), "forNodes[0].name is required"),
        (endpoint("deprecatedTopology: {a: b}"), ""),
        (ports("{port: 80}, {port: 81}"), "ports[1]: the same name as ports[0]"),
        (ports("{port: 0}"), "ports[0].port: 0 is not a port"),
        (ports("{port: null, name: a}"), ""),
        (ports("{name: A}"), "ports[0].name: `A` is not a DNS label"),
        (ports("{protocol: udp}"), "ports[0].protocol: unsupported"),
    ]);
}

#[test]
fn weights_of_slices_are_numbers_up_to_a_thousand() {
    let slice = |weight: &str| {
        let name = format!("e, annotations: {{weir.dev/weight: {weight}}}");
        object("discovery.k8s.io/v1", "EndpointSlice", &name, "addressType: IPv4")
    };
    assert_each(&[
        (slice("'0'"), ""),
        (slice("'1000'"), ""),
        (slice("'1001'"), "metadata.annotations[weir.dev/weight]: `1001` is not a number from 0 to 1000"),
        (slice("'+1'"), "`+1` is not a number"),
        (slice("'-1'"), "`-1` is not a number"),
        (slice("heavy"), "`heavy` is not a number"),
        (slice("5"), "expected a string"),
    ]);
}

#[test]
fn pods_and_nodes_are_checked_in_what_is_read_of_them() {
    let container =
        |ports: &str| pod("a", &format!("{{containers: [{{name: c, image: x, ports: [{ports}]}}]}}"), "{}");
    let node = |rest: &str| object("v1", "Node", "n", rest);
    assert_each(&[
        (pod("a", "{whatever: {a: [1]}}", "{qosClass: x}"), ""),
        (pod("a", "{hostNetwork: 'yes'}", "{}"), "spec.hostNetwork: expected true or false"),
        (pod("a", "{nodeName: N}", "{}"), "spec.nodeName"),
        (pod("a", "{}", "{phase: running}"), "status.phase: unsupported"),
        (pod("a", "{}", "{podIP: 10.0.0}"), "status.podIP"),
        (pod("a", "{}", "{podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}"), "status.podIP: differs"),
        (
            pod("a", "{}", "{podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}"),
            "status.podIPs[1].ip: the same address family",
        ),
        (pod("a", "{}", "{podIPs: [10.0.0.1]}"), "status.podIPs[0]: expected an object"),
        (container("{containerPort: 80, name: http}, {containerPort: 80, name: dns, protocol: UDP}"), ""),
        (container("{containerPort: 80, name: http}, {containerPort: 81, name: http}"), "the same name"),
        (container("{containerPort: 0}"), "containerPort: 0 is not a port"),
        (container("{name: a}"), "containerPort is required"),
        (container("{containerPort: 80, name: HTTP}"), "name"),
        (container("{containerport: 80, containerPort: 80}"), "did you mean `containerPort`?"),
        (node("spec: {podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24, 'fd00::/64']}"), ""),
        (node("spec: {podCIDR: 10.0.0.0/24, podCIDRs: [10.0.1.0/24]}"), "spec.podCIDR: differs"),
        (node("spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24]}"), "the same address family"),
        (node("status: {addresses: [{type: InternalIP, address: host}]}"), "status.addresses[0].address"),
        (node("status: {addresses: [{type: Hostname, address: host}]}"), ""),
    ]);
}

#[test]
fn sidecars_declare_ports_and_other_init_containers_do_not() {
    let text = pod(
        "a",
        "{containers: [{ports: [{containerPort: 1}]}], initContainers: [{restartPolicy: Always, ports: [{containerPort: 2}]}, {ports: [{containerPort: 3}]}]}",
        "{conditions: [{type: Ready, status: 'False'}]}",
    );
    let cluster = cluster(&text);
    let pod = cluster.pods.values().next().unwrap();
    assert_eq!(pod.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [1, 2]);
    assert!(!pod.ready);
}

#[test]
fn kubectl_words_name_kinds() {
    for (word, kind) in [
        ("po", Kind::Pod),
        ("Services", Kind::Service),
        ("networkpolicies", Kind::NetworkPolicy),
        ("endpointslice", Kind::EndpointSlice),
    ] {
        assert_eq!(Kind::from_word(word), Some(kind));
    }
    assert_eq!(Kind::from_word("deployments"), None);
    assert!(manifest::from_text("x", "").unwrap().objects.is_empty());
}
