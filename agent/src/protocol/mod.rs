//! What the CLI and the agent say to each other over the control socket.
//!
//! One JSON value a line: a request from the client, one or more responses from the agent. Each line is
//! an [`Envelope`] with the version of this protocol, so that a client of another release is told so and
//! not misread.

mod connection;
mod event;
mod observation;
mod policy;
mod request;
mod response;
mod service;

use serde::{Deserialize, Serialize};

pub use self::{connection::*, event::*, observation::*, policy::*, request::*, response::*, service::*};

/// Version of the protocol; changes whenever a value below changes its meaning.
pub const VERSION: u32 = 3;

/// Longest line that either side accepts, in bytes.
pub const MAX_LINE: usize = 64 << 20;

/// Name of the control socket in an agent's state directory.
pub const SOCKET: &str = "weir.sock";

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What it says.
    pub body: T,
}

/// The version of a line, whatever its body is.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Why a line could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The other side speaks another version.
    #[error(
        "the other side speaks version {0} of the control protocol, this one version {VERSION}: use the same release of weir for both"
    )]
    Version(u32),
    /// Not what the protocol says.
    #[error("not a line of the control protocol: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// The line that says `body`, its newline included.
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(&Envelope { version: VERSION, body })?;
    line.push(b'\n');
    Ok(line)
}

/// What a line says.
pub fn decode<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<T, DecodeError> {
    let Version { version } = serde_json::from_slice(line)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    Ok(serde_json::from_slice::<Envelope<T>>(line)?.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_was_said() {
        let line =
            encode(&Request::Get { kind: Kind::Pods, name: None, namespace: Some("demo".into()) }).unwrap();

        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let request: Request = decode(&line).unwrap();

        assert!(
            matches!(request, Request::Get { kind: Kind::Pods, name: None, namespace: Some(namespace) } if namespace == "demo")
        );
    }

    #[test]
    fn another_version_is_told_from_another_body() {
        let newer = format!(r#"{{"version":{},"body":{{"aRequestOfTheFuture":1}}}}"#, VERSION + 1);
        let unknown = format!(r#"{{"version":{VERSION},"body":{{"aRequestOfTheFuture":1}}}}"#);

        assert!(
            matches!(decode::<Request>(newer.as_bytes()), Err(DecodeError::Version(version)) if version == VERSION + 1)
        );
        assert!(matches!(decode::<Request>(unknown.as_bytes()), Err(DecodeError::Syntax(_))));
    }
}
