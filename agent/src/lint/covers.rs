//! Whether one rule says all that another says.
//!
//! The answer is "yes" only when it follows from the rules themselves, whatever pods there are or will be.

use ipnet::IpNet;

use crate::cluster::{
    ClusterPeer, ClusterPeerKind, Labels, Operator, PeerKind, PodSet, PolicyPeer, PolicyPort, PortMatch,
    Requirement, Selector,
};

/// Whether all that `b` selects is selected by `a`.
pub(super) fn selector(a: &Selector, b: &Selector) -> bool {
    a.requirements.iter().all(|wanted| b.requirements.iter().any(|given| implies(given, wanted)))
}

fn implies(given: &Requirement, wanted: &Requirement) -> bool {
    given.key == wanted.key
        && match (&given.operator, &wanted.operator) {
            (Operator::In(_) | Operator::Exists, Operator::Exists)
            | (Operator::DoesNotExist, Operator::DoesNotExist | Operator::NotIn(_)) => true,
            (Operator::In(given), Operator::In(wanted)) => given.is_subset(wanted),
            (Operator::In(given), Operator::NotIn(refused)) => given.is_disjoint(refused),
            (Operator::NotIn(given), Operator::NotIn(wanted)) => wanted.is_subset(given),
            _ => false,
        }
}

/// The same for selectors of which an absent one selects everything.
fn optional(a: Option<&Selector>, b: Option<&Selector>) -> bool {
    match (a, b) {
        (None, _) => true,
        (Some(a), Some(b)) => selector(a, b),
        (Some(a), None) => a.requirements.is_empty(),
    }
}

/// Whether pods of `b` are all pods of `a`.
pub(super) fn pod_set(a: &PodSet, b: &PodSet) -> bool {
    selector(&a.namespaces, &b.namespaces) && optional(a.pods.as_ref(), b.pods.as_ref())
}

/// Whether each peer of `b` is one of `a`, in a policy of the namespace with the labels `own`.
pub(super) fn peers(a: Option<&[PolicyPeer]>, b: Option<&[PolicyPeer]>, own: &Labels) -> bool {
    let Some(a) = a else { return true };
    b.is_some_and(|b| b.iter().all(|b| a.iter().any(|a| peer(&a.kind, &b.kind, own))))
}

fn peer(a: &PeerKind, b: &PeerKind, own: &Labels) -> bool {
    match (a, b) {
        (
            PeerKind::Pods { namespaces: a_namespaces, pods: a_pods },
            PeerKind::Pods { namespaces: b_namespaces, pods: b_pods },
        ) => {
            let namespaces = match (a_namespaces, b_namespaces) {
                (None, None) => true,
                (Some(a), Some(b)) => selector(a, b),
                (Some(a), None) => a.matches(own),
                (None, Some(_)) => false,
            };
            namespaces && optional(a_pods.as_ref(), b_pods.as_ref())
        }
        (PeerKind::Block { cidr: a, except: a_except }, PeerKind::Block { cidr: b, except: b_except }) => {
            let kept_out = |out: &IpNet| b_except.iter().any(|except| except.contains(out));
            a.contains(b) && a_except.iter().all(|out| !overlap(out, b) || kept_out(out))
        }
        _ => false,
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether each port of `b` is one of `a`.
pub(super) fn ports(a: Option<&[PolicyPort]>, b: Option<&[PolicyPort]>) -> bool {
    let Some(a) = a else { return true };
    b.is_some_and(|b| b.iter().all(|b| a.iter().any(|a| port(a, b))))
}

fn port(a: &PolicyPort, b: &PolicyPort) -> bool {
    a.protocol == b.protocol
        && match (&a.ports, &b.ports) {
            (PortMatch::All, _) => true,
            (PortMatch::Range(a_first, a_last), PortMatch::Range(b_first, b_last)) => {
                a_first <= b_first && b_last <= a_last
            }
            (a, b) => a == b,
        }
}

/// Whether each peer of `b` is one of `a`.
pub(super) fn cluster_peers(a: &[ClusterPeer], b: &[ClusterPeer]) -> bool {
    b.iter().all(|b| a.iter().any(|a| cluster_peer(&a.kind, &b.kind)))
}

fn cluster_peer(a: &ClusterPeerKind, b: &ClusterPeerKind) -> bool {
    match (a, b) {
        (ClusterPeerKind::Pods(a), ClusterPeerKind::Pods(b)) => pod_set(a, b),
        (ClusterPeerKind::Nodes(a), ClusterPeerKind::Nodes(b)) => selector(a, b),
        (ClusterPeerKind::Networks(a), ClusterPeerKind::Networks(b)) => {
            b.iter().all(|b| a.iter().any(|a| a.contains(b)))
        }
        _ => false,
    }
}
