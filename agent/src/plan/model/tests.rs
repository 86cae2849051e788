use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use proptest::prelude::*;
use weir_common::{
    addr::V4,
    policy::{IDENTITY_WORLD, Identity},
    service::flags,
};

use super::{
    Behaviour, Fault, Model, elements,
    generate::{Random, datapath, samples},
    verdict::{Sample, answer, by_datapath, by_maps},
};
use crate::{
    datapath::{Datapath, Frontend, Service},
    plan::{
        CommitError, Desired, Image, Interface, Layout, Plan, Sizes, Step, Write, commit, policy, room::Room,
    },
};

/// A datapath to bring about.
struct Goal {
    datapath: Datapath,
    interfaces: BTreeMap<IpAddr, Interface>,
}

impl Goal {
    fn random(seed: u64) -> Self {
        let (datapath, interfaces) = datapath(&mut Random(seed));
        Self { datapath, interfaces }
    }

    /// One with pods and services of both families, and several rule sets.
    fn rich() -> Self {
        let is_rich = |goal: &Self| {
            let image = committed(goal).1;
            let v6 = image.endpoints.keys().filter(|address| address.is_ipv6()).count();
            let services = |ipv6| image.frontends.keys().any(|key| key.address.is_ipv6() == ipv6);
            v6 > 0
                && services(false)
                && services(true)
                && image.endpoints.len() > v6 + 1
                && image.peers.len() > 2
                && image.live_rule_sets().len() > 2
        };
        (0..).map(Self::random).find(is_rich).unwrap()
    }

    fn desired(&self) -> Desired<'_> {
        Desired { datapath: &self.datapath, interfaces: &self.interfaces, uplink: 2, events: 0 }
    }

    fn plan(&self, layout: &Layout) -> Plan {
        Plan::between(layout, &self.desired(), &Sizes::default()).unwrap()
    }

    /// What the datapath means.
    fn behaviour(&self, samples: &[Sample]) -> Behaviour {
        let attached = |pod: &IpAddr| self.interfaces.get(pod).copied();
        let verdicts = samples.iter().map(|sample| by_datapath(&self.datapath, attached, sample));
        let answers = self.datapath.frontends.iter().map(|(frontend, service)| {
            let rings = (service.internal.iter().collect(), service.external.iter().collect());
            (*frontend, (service.id, service.flags, rings.0, rings.1))
        });
        (verdicts.collect(), answers.collect())
    }
}

/// What the maps do.
fn behaviour(image: &Image, samples: &[Sample]) -> Behaviour {
    let answers = image.frontends.keys().map(|frontend| (*frontend, answer(image, frontend).unwrap()));
    (samples.iter().map(|sample| by_maps(image, sample)).collect(), answers.collect())
}

/// Fails unless every verdict and every frontend of `now` is that of `old` or that of `new`.
fn assert_between(now: &Behaviour, old: &Behaviour, new: &Behaviour, samples: &[Sample], after: &Write) {
    for (index, sample) in samples.iter().enumerate() {
        let (verdict, old, new) = (now.0[index], old.0[index], new.0[index]);
        assert!(
            verdict == old || verdict == new,
            "{sample:?}: {verdict:?} is neither {old:?} nor {new:?} after {after:?}"
        );
    }
    let frontends: BTreeSet<&Frontend> = now.1.keys().chain(old.1.keys()).chain(new.1.keys()).collect();
    for frontend in frontends {
        let (answer, old, new) = (now.1.get(frontend), old.1.get(frontend), new.1.get(frontend));
        assert!(answer == old || answer == new, "{frontend:?}: neither old nor new after {after:?}");
    }
}

/// Brings maps and layout to `goal`, whatever they were before, and checks that nothing is left over.
fn settle(layout: &mut Layout, image: Image, goal: &Goal) -> Image {
    let samples = samples();
    let (old, new) = (behaviour(&image, &samples), goal.behaviour(&samples));
    let plan = goal.plan(layout);
    let watch = |image: &Image, write: &Write| {
        assert_between(&behaviour(image, &samples), &old, &new, &samples, write);
    };
    let mut model = Model::watched(image, watch);
    let report = commit(layout, &plan, &mut model).unwrap();
    let image = std::mem::take(&mut model.image);
    drop(model);

    assert_eq!(behaviour(&image, &samples), new);
    assert_eq!(report.left_over, None);
    assert_eq!(image.state.epoch, layout.image.state.epoch);
    assert_eq!(policy::orphans(&image), []);
    let identities = goal.datapath.identities.iter().map(|(net, id)| (*net, Identity { slots: [*id; 2] }));
    assert_eq!(image.identities, identities.collect());
    let members = goal.datapath.frontends.values();
    let members = members
        .flat_map(|service| service.members.iter().map(|(backend, bits)| ((service.id, *backend), *bits)));
    assert_eq!(image.members, members.collect());
    let known = &layout.known.as_ref().unwrap().policy;
    assert_eq!(
        known.room(),
        &Room::beside(&image, &Sizes::default()),
        "what is free is not what is not used"
    );
    assert!(goal.plan(layout).is_empty(), "a second commit of the same has something to do");
    image
}

/// Maps and layout that a commit of `goal` leaves.
fn committed(goal: &Goal) -> (Layout, Image) {
    let mut layout = Layout::default();
    let image = settle(&mut layout, Image::default(), goal);
    (layout, image)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn after_every_write_each_verdict_is_the_old_or_the_new(seeds in proptest::collection::vec(any::<u64>(), 1..5)) {
        let mut layout = Layout::default();
        let mut image = Image::default();
        for seed in seeds {
            image = settle(&mut layout, image, &Goal::random(seed));
            prop_assert_eq!(&layout.image, &image);
        }
    }

    #[test]
    fn a_restarted_agent_goes_on_from_what_the_maps_hold(first: u64, second: u64) {
        let (_, image) = committed(&Goal::random(first));
        let mut layout = Layout::found(image.clone());
        settle(&mut layout, image, &Goal::random(second));
    }
}

proptest! {
    // Each case tries every write.
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn a_write_that_fails_leaves_the_old_revision(first: u64, second: u64, third: u64) {
        let goals = [first, second, third].map(Goal::random);
        let (layout, image) = committed(&goals[0]);
        let samples = samples();
        let old = goals[0].behaviour(&samples);
        let plan = goals[1].plan(&layout);
        for at in fault_points(&plan) {
            let mut layout = layout.clone();
            let mut model = Model::failing(image.clone(), Fault::Once(at));
            let error = commit(&mut layout, &plan, &mut model).unwrap_err();
            prop_assert!(matches!(error, CommitError::RolledBack { revision: 1, .. }), "{}", error);
            prop_assert_eq!(&behaviour(&model.image, &samples), &old);
            // Flows that were decided meanwhile bear one of these epochs.
            prop_assert!(![1, 2].contains(&model.image.state.epoch));
            settle(&mut layout, model.image, &goals[2]);
        }
    }

    #[test]
    fn an_agent_that_dies_at_any_write_leaves_what_the_next_one_repairs(first: u64, second: u64, third: u64) {
        let goals = [first, second, third].map(Goal::random);
        let (layout, image) = committed(&goals[0]);
        let samples = samples();
        let (old, new) = (goals[0].behaviour(&samples), goals[1].behaviour(&samples));
        let plan = goals[1].plan(&layout);
        for at in fault_points(&plan) {
            let mut model = Model::failing(image.clone(), Fault::Dead(at));
            let error = commit(&mut layout.clone(), &plan, &mut model).unwrap_err();
            prop_assert!(matches!(error, CommitError::Mixed { .. }), "{}", error);
            let found = behaviour(&model.image, &samples);
            assert_between(&found, &old, &new, &samples, &Write::Vectors(Vec::new()));
            let mut layout = Layout::found(model.image.clone());
            settle(&mut layout, model.image, &goals[2]);
        }
    }

    #[test]
    fn a_cleanup_that_fails_changes_no_verdict(first: u64, second: u64, third: u64) {
        let goals = [first, second, third].map(Goal::random);
        let (layout, image) = committed(&goals[0]);
        let samples = samples();
        let plan = goals[1].plan(&layout);
        let cleanup: usize = plan.cleanup.iter().map(Write::len).sum();
        for at in needed(&plan)..needed(&plan) + cleanup {
            let mut model = Model::failing(image.clone(), Fault::Once(at));
            let report = commit(&mut layout.clone(), &plan, &mut model).unwrap();
            prop_assert!(report.left_over.is_some());
            prop_assert_eq!(behaviour(&model.image, &samples), goals[1].behaviour(&samples));
            let mut layout = Layout::found(model.image.clone());
            settle(&mut layout, model.image, &goals[2]);
        }
    }
}

/// Where to fail: at the first element of each write to an array, whose elements nothing refers to yet,
/// and at every element of each other write.
fn fault_points(plan: &Plan) -> Vec<usize> {
    let mut points = Vec::new();
    let mut next = 0;
    for step in &plan.steps {
        let Step::Write(write) = step else { continue };
        let array = matches!(
            write,
            Write::Vectors(_) | Write::Ports(_) | Write::Rules(_) | Write::RuleSets(_) | Write::Rings(..)
        );
        let count = elements(write).len();
        points.extend(next..next + if array { 1 } else { count });
        next += count;
    }
    points
}

/// Number of elements that a plan must write.
fn needed(plan: &Plan) -> usize {
    let len = |step: &Step| match step {
        Step::Write(write) => elements(write).len(),
        Step::WaitForReaders => 0,
    };
    plan.steps.iter().map(len).sum()
}

#[test]
fn a_new_address_of_a_known_identity_costs_one_prefix_and_one_write_per_pod() {
    let mut goal = Goal::rich();
    let (layout, _) = committed(&goal);
    let address: IpAddr = "10.0.2.9".parse().unwrap();
    let covering = goal.datapath.identities.iter().filter(|(net, _)| net.contains(&address));
    let was =
        covering.max_by_key(|(net, _)| net.prefix_len()).map_or(IDENTITY_WORLD, |(_, identity)| *identity);
    let known = *goal.datapath.identities.values().find(|identity| **identity != was).unwrap();
    goal.datapath.identities.insert(address.into(), known);
    let plan = goal.plan(&layout);
    let touched: BTreeMap<_, _> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Write(write) => Some((write.target(), write.len())),
            Step::WaitForReaders => None,
        })
        .collect();
    let pods = layout.image.endpoints.len();
    assert_eq!(touched, BTreeMap::from([("IDENTITIES", 1), ("ENDPOINTS", pods), ("STATE", 1)]));
}

#[test]
fn a_pod_that_goes_is_removed_before_another_one_is_switched() {
    let mut goal = Goal::rich();
    let (layout, _) = committed(&goal);
    let gone = *layout.image.endpoints.keys().next().unwrap();
    goal.datapath.endpoints.remove(&gone);
    goal.datapath.identities.insert("10.0.2.9/32".parse().unwrap(), 99_u32);
    let plan = goal.plan(&layout);
    let endpoints = plan.steps.iter().find_map(|step| match step {
        Step::Write(Write::Endpoints(change)) => Some(change.clone()),
        _ => None,
    });
    assert_eq!(endpoints, Some(crate::plan::Change::Delete(vec![gone])));
}

#[test]
fn what_does_not_fit_is_refused_whole_with_the_numbers() {
    let goal = Goal::rich();
    let full = Sizes::default();
    for (map, sizes) in [
        ("RULE_SETS", Sizes { rule_sets: 2, ..full }),
        ("VECTORS", Sizes { vectors: 2, ..full }),
        ("RULES", Sizes { rules: 1, ..full }),
        ("PORTS", Sizes { ports: 3, ..full }),
        ("PEERS", Sizes { peers: 1, ..full }),
        ("RINGS_V4", Sizes { rings: crate::plan::PerFamily { v4: 1, v6: 100 }, ..full }),
        ("FRONTENDS_V4", Sizes { frontends: crate::plan::PerFamily { v4: 0, v6: 100 }, ..full }),
        ("MEMBERS_V4", Sizes { members: crate::plan::PerFamily { v4: 0, v6: 100 }, ..full }),
        ("IDENTITIES_V6", Sizes { identities: crate::plan::PerFamily { v4: 100, v6: 0 }, ..full }),
        ("ENDPOINTS_V6", Sizes { endpoints: crate::plan::PerFamily { v4: 100, v6: 0 }, ..full }),
    ] {
        let refused = Plan::between(&Layout::default(), &goal.desired(), &sizes).unwrap_err();
        assert_eq!(refused.map, map);
        assert!(refused.needed > u64::from(refused.capacity), "{refused}");
    }
}

#[test]
fn a_service_with_source_ranges_has_them_at_every_instant() {
    let mut goal = Goal::rich();
    let restrict = |goal: &mut Goal, ranges: &[IpNet]| {
        let restricted = goal.datapath.frontends.iter().map(|(frontend, service)| {
            let flags = if ranges.is_empty() { 0 } else { flags::SOURCE_RANGES };
            (*frontend, Service { source_ranges: ranges.to_vec(), flags, ..Service::clone(service) }.into())
        });
        goal.datapath.frontends = restricted.collect();
    };
    let mut layout = committed(&goal).0;
    // As many as stand in a frontend's value, more than those, and back again.
    for (third, count) in [(2, 1), (3, 4), (4, 5), (5, 6), (6, 2), (7, 0)] {
        let ranges: Vec<IpNet> =
            (0..count).map(|last| format!("192.0.{third}.{last}/32").parse().unwrap()).collect();
        restrict(&mut goal, &ranges);
        let plan = goal.plan(&layout);
        let mut model = Model::watched(layout.image.clone(), |image, write| {
            for service in
                image.frontends.values().filter(|service| service.flags & flags::SOURCE_RANGES != 0)
            {
                let is_here = service.flags & flags::SOURCES_HERE != 0;
                let has_some = is_here || image.sources.keys().any(|(id, _)| *id == service.id);
                assert!(has_some, "service {} refuses everybody after {write:?}", service.id);
            }
        });
        commit(&mut layout, &plan, &mut model).unwrap();
        let listed: BTreeSet<_> = layout.image.sources.keys().map(|(_, net)| *net).collect();
        let wanted = ranges.into_iter().filter(|_| count > 4);
        assert_eq!(listed, wanted.collect());
        for service in layout.image.frontends.values() {
            let is_here = (1..=4).contains(&count);
            assert_eq!(service.flags & flags::SOURCES_HERE != 0, is_here);
            let admits = |third| is_here && service.sources.contain(V4::from_octets([192, 0, third, 0]));
            assert_eq!((admits(third), admits(99)), (is_here, false));
        }
    }
}
