//! Traffic for `cargo xtask bench e2e`, by epoll (mio) and over IPv4.
//!
//! ```text
//! weir-load CPU server PORT
//! weir-load CPU MODE ADDRESS[,ADDRESS..] PORT SOCKETS SECONDS
//! ```
//!
//! `connect` opens a TCP connection, asks, reads the answer and the end; `request` asks on connections that
//! stay; `datagram` asks from a new UDP socket each time. They print a line: operations per second, failures,
//! median and 99th percentile in microseconds. `flood` sends UDP datagrams of 64 bytes, and `stream` TCP
//! segments as large as they get, both as fast as they can: what of it arrives, the receiver's kernel counts.
#![forbid(unsafe_code)]

mod client;
mod flood;
mod server;

use std::{env, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Bytes of a request and of an answer.
const MESSAGE: usize = 64;
/// First byte of a request after whose answer the server closes.
const LAST: u8 = b'c';
/// First byte of a request after whose answer the connection stays.
const MORE: u8 = b'k';
/// First byte of what nobody answers.
const SILENT: u8 = b's';

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [cpu, mode, rest @ ..] = &args[..] else { bail!("usage: weir-load CPU MODE ...") };
    pin(cpu.parse().context("a CPU is a number")?)?;
    if mode == "server" {
        let [port] = rest else { bail!("usage: weir-load CPU server PORT") };
        return server::run(port.parse().context("a port is a number")?);
    }
    let [addresses, port, sockets, seconds] = rest else {
        bail!("usage: weir-load CPU MODE ADDRESS[,ADDRESS..] PORT SOCKETS SECONDS");
    };
    let port = port.parse().context("a port is a number")?;
    let address = |text: &str| Ok(SocketAddr::new(text.parse()?, port));
    let targets = addresses.split(',').map(address).collect::<Result<Vec<_>>>()?;
    let sockets: usize = sockets.parse().context("sockets are a number")?;
    let time = Duration::from_secs_f64(seconds.parse().context("seconds are a number")?);
    match mode.as_str() {
        "connect" => client::run(client::Mode::Connect, &targets, sockets, time),
        "request" => client::run(client::Mode::Request, &targets, sockets, time),
        "datagram" => client::run(client::Mode::Datagram, &targets, sockets, time),
        "flood" => flood::datagrams(&targets, sockets, time),
        "stream" => flood::stream(targets[0], time),
        other => bail!("there is no mode {other}"),
    }
}

/// Client and servers share one CPU, so that a rate is what all of them cost together.
fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one CPU")
}
