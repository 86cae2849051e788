//! The command line of `weir agent`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

/// `weir agent`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir agent --node node-a --manifests /etc/weir
  weir agent --node node-a --manifests shop.yaml --manifests policies/ --log-level debug

The agent ends on SIGTERM; what it enforces stays in force. `weir detach --all` removes it.")]
pub(in crate::cli) struct Agent {
    /// The Node object that this host is.
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// Files and directories of manifests; watched. May be repeated.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub manifests: Vec<PathBuf>,
    /// Directory for the control socket and the accepted state [default: /run/weir/NODE]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Directory for pinned programs and maps [default: /sys/fs/bpf/weir/NODE]
    #[arg(long, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// Interface towards other nodes [default: the one that holds the node's InternalIP]
    #[arg(long, value_name = "DEV")]
    pub uplink: Option<String>,
    /// How programs are attached; `auto` takes TCX where the kernel has it.
    #[arg(long, value_enum, default_value_t)]
    pub attach_mode: AttachMode,
    /// How services that ask for it by annotation are served before the network stack.
    #[arg(long, value_enum, default_value_t)]
    pub xdp_mode: XdpMode,
    /// Serve metrics for Prometheus there, at /metrics, such as 127.0.0.1:9469 [default: not at all]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Least important log lines to write; `debug` and `trace` include those of the eBPF programs.
    #[arg(long, value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// Form of the log, which goes to standard error.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AttachMode {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// TCX (Linux 6.6 and later).
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
}

/// How the uplink's XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum XdpMode {
    /// By the driver if it can, else generic, else not at all.
    #[default]
    Auto,
    /// By the driver.
    Native,
    /// By the kernel, in front of its stack.
    Generic,
    /// Not at all; TC serves everything.
    Off,
}

/// Least important log lines to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(in crate::cli) enum LogLevel {
    /// What went wrong.
    Error,
    /// What may go wrong.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// How it happens.
    Debug,
    /// Everything.
    Trace,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
