//! What follows changes is what is compiled anew.

use proptest::prelude::*;

use super::*;
use crate::{
    compile::services::Compiled,
    datapath::{Backend, Target},
};

/// One state of a cluster: for each of three services, whether it is there, its place, its slices and their
/// endpoints. No two have one address, but they may take over another's, and an external address of one may be
/// a node's, at the node port of another, or an endpoint's.
type State = (usize, [(bool, u8, Vec<u8>); 3], bool);

fn state() -> impl Strategy<Value = State> {
    let each = || (any::<bool>(), 0..5_u8, proptest::collection::vec(0..6_u8, 0..3));
    (0..3_usize, [each(), each(), each()], proptest::bool::weighted(0.1))
}

fn cluster_of((turn, services, is_local): &State) -> Cluster {
    let mut cluster = cluster(Vec::new());
    cluster.config.masquerade_all = *is_local;
    (cluster.services, cluster.slices) = Default::default();
    for (number, (is_there, form, slices)) in services.iter().enumerate() {
        let own_name = format!("s{number}");
        if *is_there {
            let place = (number + turn) % 3;
            let mut service = service();
            service.name = name(&own_name);
            service.cluster_ips = vec![ip(&format!("10.96.0.{place}"))];
            (service.load_balancer_ips, service.health_check_port) = (Vec::new(), None);
            service.external_ips = if *form == 1 && place == 0 { vec![ip(NODE)] } else { Vec::new() };
            service.internal_local = *form == 2;
            service.ports.truncate(1);
            // The external address's port.
            service.ports[0].port = if *form == 1 && place == 0 { NODE_PORT } else { 80 };
            if *form == 4 {
                (service.external_ips, service.ports[0].port) = (vec![ip(&format!("10.64.1.{place}"))], 8080);
            }
            service.ports[0].node_port = (place == 1).then_some(NODE_PORT);
            cluster.services.insert(service.name.clone(), service);
        }
        for (index, last) in slices.iter().enumerate() {
            let slice_name = format!("{own_name}-{index}");
            let address = format!("10.64.1.{last}");
            let mut slice = slice(&slice_name, vec![endpoint(&address, "node-1")]);
            slice.service = Some(own_name.as_str().into());
            cluster.slices.insert(slice.name.clone(), slice);
        }
    }
    cluster
}

proptest! {
    #[test]
    fn services_that_change_are_compiled_as_they_would_be_anew(
        states in proptest::collection::vec((state(), proptest::option::of((0..3_u8, 0..6_u8))), 1..8),
    ) {
        let mut numbers = Numbers::default().services;
        let mut compiled = Compiled::default();
        for (state, failing) in &states {
            let target = failing.map(|(service, last)| Target {
                service: name(&format!("s{service}")),
                backend: Backend { address: ip(&format!("10.64.1.{last}")), port: 8080 },
            });
            let unhealthy = target.into_iter().collect();
            let cluster = cluster_of(state);
            let before = compiled.clone();
            compiled.update(&cluster, "node-1", &unhealthy, &mut numbers);
            numbers.free(compiled.gone_since(&before));

            let (identities, were) = (&compiled.services.identities, &before.services.identities);
            prop_assert_eq!(identities.is_same(were), identities == were, "policy is judged anew for nothing");
            let in_use = numbers.clone();
            prop_assert_eq!(&compiled.services, &services::compile(&cluster, "node-1", &unhealthy, &mut numbers));
            prop_assert!(numbers.iter().eq(in_use.iter()), "a number in use was freed, or one was kept");
        }
    }
}
