//! `weir lint`: mistakes that are valid policies, and mean something else than their authors believe.
//!
//! Everything is judged by the validated [`Cluster`]; each finding stands where the mistake does.

mod cluster_rules;
mod covers;
mod effect;
mod peers;
mod pods;
mod rules;
#[cfg(test)]
mod tests;

use crate::{
    cluster::{Cluster, Pod},
    source::Source,
};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it stands.
    pub source: Source,
    /// Which of the classical ones it is.
    pub code: Code,
    /// What it is about.
    pub message: String,
}

/// Defines [`Code`] with its names and meanings, so that none can be forgotten.
macro_rules! codes {
    ($($variant:ident $name:literal $meaning:literal)+) => {
        /// The mistakes that are looked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that people see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

codes! {
    OrInsteadOfAnd "or-instead-of-and" "separate items of a peer list each match on their own; both selectors in one item match only pods that have both"
    RuleMatchesNothing "rule-matches-nothing" "the rule decides nothing, because nobody is what it names"
    PolicySelectsNothing "policy-selects-nothing" "the policy protects nobody, because no pod is what it selects"
    RuleShadowed "rule-shadowed" "the rule changes nothing, because another one already allows all of it"
    ClusterRuleShadowed "cluster-rule-shadowed" "the rule is never reached, because a stronger one decides all of it"
    NoDnsEgress "no-dns-egress" "no rule lets these pods send UDP to port 53, so that they resolve no names"
    UnprotectedPod "unprotected-pod" "no policy restricts what reaches these pods, so that everyone does"
    TypeMissing "type-missing" "rules of a direction that policyTypes leaves out have no effect"
    BlockCoversPods "block-covers-pods" "an address block means the pods that have its addresses too; `except` takes them out"
}

impl Code {
    fn at(self, source: &Source, message: impl Into<String>) -> Finding {
        Finding { source: source.clone(), code: self, message: message.into() }
    }
}

/// The mistakes in `cluster`, in the order of files and lines. Without any pod in it, nothing is said about
/// whom selectors match.
pub fn lint(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in cluster.policies.values() {
        rules::without_type(policy, &mut findings);
        rules::shadowed(cluster, policy, &mut findings);
        peers::or_instead_of_and(policy, &mut findings);
        peers::blocks_of_pods(cluster, policy, &mut findings);
    }
    cluster_rules::shadowed(cluster, &mut findings);
    if !cluster.pods.is_empty() {
        effect::without_effect(cluster, &mut findings);
        pods::unprotected(cluster, &mut findings);
        pods::without_dns(cluster, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// The pods that policies are about. Those without an address count: they may get one.
fn pods(cluster: &Cluster) -> impl Iterator<Item = &Pod> {
    cluster.pods.values().map(|pod| &**pod).filter(|pod| !pod.host_network && !pod.finished)
}

/// Some pods by name, for a message.
fn names(pods: &[&Pod]) -> String {
    match pods {
        [] => String::new(),
        [only] => only.name.to_string(),
        [first, second] => format!("{} and {}", first.name, second.name),
        [first, others @ ..] => format!("{} and {} others", first.name, others.len()),
    }
}
