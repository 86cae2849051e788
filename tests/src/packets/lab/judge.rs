//! Packets on their way: one by one, each checked against the counters.

use weir::kernel::{Program, sys::Outcome};
use weir_common::{
    reason::{Hook, Reason},
    state::LOOPBACK,
};

use super::{
    super::{
        At,
        action::{REDIRECT, SHOT, UNSPEC, XDP_DROP, XDP_PASS, XDP_TX},
    },
    Lab,
};

/// What becomes of a packet.
pub type Verdict = Result<Passed, Reason>;

/// A packet that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whether it was handed to another interface, past the node's stack.
    pub is_redirected: bool,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
}

/// A packet that was refused, and its sender told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Why it was refused.
    pub reason: Reason,
    /// The frame that goes back.
    pub frame: Vec<u8>,
}

impl Lab {
    /// A frame comes in by the uplink, before the stack: what the edge sends out again, `None` when it leaves
    /// the frame, unchanged, to the stack.
    #[track_caller]
    pub fn meet_edge(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.judge_at_edge(frame).expect("the edge drops it")
    }

    /// The same, where the edge may drop it.
    pub fn judge_at_edge(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        let at = At { ifindex: self.uplink, ingress: self.uplink };
        let outcome = self.node.run(Program::Edge, at, frame).expect("the program runs");
        let mut counted = self.counted();
        // The kernel reports its multicast groups by an interface that is up.
        counted.retain(|((hook, _), _)| *hook == Hook::Edge);
        match (outcome.verdict, &counted[..]) {
            (XDP_TX, [((_, None), 1)]) => Ok(Some(outcome.data)),
            (XDP_DROP, [((_, Some(reason)), 1)]) => Err(*reason),
            (XDP_PASS, []) => {
                assert_eq!(outcome.data, frame, "left to the stack");
                Ok(None)
            }
            (verdict, _) => panic!("the program returned {verdict}, counted {counted:?}"),
        }
    }

    /// A pod sends a frame.
    pub fn send(&self, pod: &str, frame: &[u8]) -> Verdict {
        let ifindex = self.pod(pod).ifindex;
        self.judge(Program::FromPod, At { ifindex, ingress: ifindex }, frame)
    }

    /// A frame that came by the uplink is about to enter a pod.
    pub fn receive(&self, pod: &str, frame: &[u8]) -> Verdict {
        self.judge(Program::ToPod, At { ifindex: self.pod(pod).ifindex, ingress: self.uplink }, frame)
    }

    /// A frame of the node itself is about to enter a pod.
    pub fn receive_from_node(&self, pod: &str, frame: &[u8]) -> Verdict {
        self.judge(Program::ToPod, At { ifindex: self.pod(pod).ifindex, ingress: 0 }, frame)
    }

    /// A frame comes in by the uplink.
    pub fn arrive(&self, frame: &[u8]) -> Verdict {
        self.judge(Program::FromUplink, At { ifindex: self.uplink, ingress: self.uplink }, frame)
    }

    /// What the kernel put together from TCP segments with so many bytes of data comes in by the uplink.
    pub fn arrive_merged(&self, segment: u32, frame: &[u8]) -> Verdict {
        let at = At { ifindex: self.uplink, ingress: self.uplink };
        let outcome = self.node.run_merged(Program::FromUplink, at, segment, frame);
        self.verdict(Program::FromUplink, outcome.expect("the program runs")).expect("judged at once")
    }

    /// The node itself sends a frame by the uplink.
    pub fn leave(&self, frame: &[u8]) -> Verdict {
        self.judge(Program::ToUplink, At { ifindex: self.uplink, ingress: 0 }, frame)
    }

    /// The node itself sends a frame to an address of its own.
    pub fn loop_back(&self, frame: &[u8]) -> Verdict {
        self.judge(Program::ToUplink, At { ifindex: LOOPBACK, ingress: 0 }, frame)
    }

    /// What the last packet was answered with; `None`: it was dropped in silence, or it passed.
    pub fn answer(&self) -> Option<Answered> {
        self.answer.borrow().clone()
    }

    /// Runs a program on a frame, which is judged at once.
    pub fn judge(&self, program: Program, at: At, frame: &[u8]) -> Verdict {
        self.offer(program, at, frame).expect("kept, or sent once more")
    }

    /// Runs a program on a frame. A packet that passes counts once as passed; one that does not counts
    /// once under the one reason that is returned. One that is answered does not pass. `None`, and no count:
    /// the program keeps it, or sends it and what it has kept once more. At an ingress that goes by the
    /// interface; at an egress the program has run on all of them by now.
    pub fn offer(&self, program: Program, at: At, frame: &[u8]) -> Option<Verdict> {
        self.verdict(program, self.node.run(program, at, frame).expect("the program runs"))
    }

    fn verdict(&self, program: Program, outcome: Outcome) -> Option<Verdict> {
        let hook = match program {
            Program::FromPod => Hook::FromPod,
            Program::ToPod => Hook::ToPod,
            Program::FromUplink => Hook::FromUplink,
            Program::ToUplink => Hook::ToUplink,
            Program::Edge => Hook::Edge,
        };
        let mut counted = self.counted();
        if hook != Hook::ToUplink {
            // As before.
            counted.retain(|((hook, _), _)| *hook != Hook::ToUplink);
        }
        self.answer.replace(None);
        let is_again = match hook {
            // The interfaces of pods are down, and lose what is to come in once more.
            Hook::FromPod | Hook::Edge => false,
            _ => counted.iter().map(|(_, packets)| packets).sum::<u64>() > 1,
        };
        Some(match outcome.verdict {
            SHOT if counted.is_empty() || is_again => return None,
            REDIRECT if let [((at, Some(reason)), 1)] = counted[..] => {
                assert_eq!(at, hook);
                self.answer.replace(Some(Answered { reason, frame: outcome.data }));
                Err(reason)
            }
            SHOT => {
                let [((at, Some(reason)), 1)] = counted[..] else {
                    panic!("dropped, counted as {counted:?}")
                };
                assert_eq!(at, hook);
                Err(reason)
            }
            UNSPEC | REDIRECT => {
                assert_eq!(counted, [((hook, None), 1)], "passed, but counted otherwise");
                Ok(Passed { is_redirected: outcome.verdict == REDIRECT, frame: outcome.data })
            }
            verdict => panic!("the program returned {verdict}"),
        })
    }
}
