//! `weir agent`.

use tracing::Level;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{
    Error,
    args::{self, AttachMode, LogFormat, LogLevel, XdpMode},
    client,
};
use crate::daemon::{self, Options, RunError};

/// `weir agent`.
pub(super) fn run(args: args::Agent) -> Result<u8, Error> {
    start_log(args.log_level, args.log_format);
    let options = Options {
        state: args.state.unwrap_or_else(|| client::run_directory().join(&args.node)),
        bpffs: args.bpffs.unwrap_or_else(|| daemon::default_pins(&args.node)),
        node: args.node,
        manifests: args.manifests,
        uplink: args.uplink,
        attach_mode: match args.attach_mode {
            AttachMode::Auto => daemon::AttachMode::Auto,
            AttachMode::Tcx => daemon::AttachMode::Tcx,
            AttachMode::Clsact => daemon::AttachMode::Clsact,
        },
        xdp_mode: match args.xdp_mode {
            XdpMode::Auto => daemon::XdpMode::Auto,
            XdpMode::Native => daemon::XdpMode::Native,
            XdpMode::Generic => daemon::XdpMode::Generic,
            XdpMode::Off => daemon::XdpMode::Off,
        },
        metrics: args.metrics,
        program_log: args.log_level >= LogLevel::Debug,
    };
    daemon::run(&options).map(|()| 0).map_err(|error| match error {
        RunError::Input(message) => Error::input(message),
        RunError::Refused(message) => Error::kernel(message),
    })
}

fn start_log(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    // Libraries are heard only when something is wrong with them.
    let filter = Targets::new().with_default(Level::WARN).with_target("weir", level);
    let log = fmt().with_max_level(Level::TRACE).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colour = super::output::Style::stderr().is_coloured();
            log.with_ansi(colour).with_target(false).finish().with(filter).init();
        }
        LogFormat::Json => log.json().finish().with(filter).init(),
    }
}
