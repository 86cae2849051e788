//! What the sender of a packet is told that is refused.

use weir_common::reason::Reason;

use super::{
    facts::{ends, is_martian},
    parse::{ETH, Frame, Packet, parse},
};
use crate::packets::{read_tuple, wrong_answer, wrong_checksums};

/// What is wrong with the answer to a frame that is refused for this reason, or with there being one or none.
pub(super) fn wrong(frame: &[u8], reason: Reason, answer: Option<&[u8]>) -> Option<String> {
    let Ok(Frame::Ip(packet)) = parse(frame) else { return wrong_answer(frame, answer, false) };
    match reason {
        Reason::ServiceBackendGone if is_reset(&packet) => match answer {
            Some(answer) => wrong_reset(frame, &packet, answer),
            None => Some("no reset".to_owned()),
        },
        Reason::ServiceNoBackend | Reason::ServicePortUnknown => {
            wrong_answer(frame, answer, frame[0] & 1 == 0 && !is_martian(packet.src))
        }
        _ => wrong_answer(frame, answer, false),
    }
}

/// Whether a packet of a connection whose backend is gone is answered by a reset.
fn is_reset(packet: &Packet) -> bool {
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    packet.protocol == 6 && !packet.is_later() && packet.tcp_flags & (RST | ACK) == ACK
}

fn wrong_reset(frame: &[u8], packet: &Packet, answer: &[u8]) -> Option<String> {
    let at = ETH + if packet.src.is_ipv4() { 20 } else { 40 };
    if answer.len() != at + 20 || answer[12..14] != frame[12..14] {
        return Some(format!("a reset of {} bytes", answer.len()));
    }
    let sequence = &frame[packet.l4 + 8..packet.l4 + 12];
    let checks = [
        (answer[..6] == frame[6..12] && answer[6..12] == frame[..6], "its MAC addresses"),
        (read_tuple(answer) == ends(packet).back(), "its addresses and ports"),
        (&answer[at + 4..at + 8] == sequence && answer[at + 8..at + 12] == [0; 4], "its numbers"),
        (answer[at + 12..at + 14] == [0x50, 0x04], "its flags"),
    ];
    let wrong = checks.into_iter().find(|(is_right, _)| !is_right).map(|(_, what)| what.to_owned());
    wrong.or_else(|| wrong_checksums(answer).pop()).map(|wrong| format!("{wrong}: {answer:02x?}"))
}
