//! `weir agent --metrics`: what `weir status` says, as Prometheus reads it (OpenMetrics 1.0).

use std::fmt;

use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::{
    http::{self, Answer},
    socket::{self, Command},
};
use crate::protocol::{self, Dropped, MapUsage, Request, Status};

const PATH: &str = "/metrics";
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Answers whoever connects, for ever: each time with what the agent says then.
pub(super) async fn serve(listener: TcpListener, commands: mpsc::Sender<Command>) {
    http::serve(listener, "the metrics port", move |request| {
        let (commands, path) = (commands.clone(), request.uri().path().to_owned());
        async move {
            match path.as_str() {
                PATH => page(&commands).await,
                _ => plain(StatusCode::NOT_FOUND, format!("there is only {PATH}\n")),
            }
        }
    })
    .await;
}

async fn page(commands: &mpsc::Sender<Command>) -> Answer {
    // Nobody waits until the client has it.
    let (_, delivered) = oneshot::channel();
    match socket::ask(commands, Request::Status, delivered).await {
        protocol::Response::Status(status) => {
            let mut response = plain(StatusCode::OK, text(*status));
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
            response
        }
        protocol::Response::Failed(failure) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")),
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "the agent answers something else\n".to_owned()),
    }
}

fn plain(code: StatusCode, text: String) -> Answer {
    let mut response = Response::new(text.into());
    *response.status_mut() = code;
    response
}

/// The page for a status.
fn text(status: Status) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(status)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes whatever is written to it");
    text
}

#[derive(Debug)]
struct Figures(Status);

/// Labels and value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, u64);

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        // All of it by name: what is added to a status is thought of here.
        let Status {
            node,
            version,
            pid: _,
            revision,
            enforced_for,
            pods_enforced,
            pods_waiting,
            services,
            policies,
            skipped: _,
            refused,
            repaired,
            last_error,
            forwarded,
            drops,
            maps,
            programs,
            edge_refused,
            problems,
        } = &self.0;
        let mut page = Page(encoder);
        page.gauges(
            "weir_build",
            "Node and version of the agent",
            [(vec![("node", node.as_str()), ("version", version.as_str())], 1)],
        )?;
        page.gauge("weir_revision", "Revision that is enforced; 0: none yet", *revision)?;
        if let Some(seconds) = enforced_for {
            page.gauge("weir_enforced_seconds", "How long something is enforced, without a gap", *seconds)?;
        }
        let pods = [("enforced", *pods_enforced), ("waiting", pods_waiting.len())];
        page.gauges(
            "weir_pods",
            "Pods of this node",
            pods.map(|(state, pods)| (vec![("state", state)], pods as u64)),
        )?;
        page.gauge("weir_services", "Services in force", *services as u64)?;
        page.gauge("weir_policies", "Policies in force", *policies as u64)?;
        page.gauge("weir_programs", "Programs on interfaces", programs.len() as u64)?;
        page.gauge(
            "weir_edge_refused",
            "1: services at the edge are served by TC, though XDP is wanted",
            edge_refused.is_some().into(),
        )?;
        page.gauge("weir_problems", "What is wrong, as weir status says it in lines", problems.len() as u64)?;
        page.gauge(
            "weir_manifests_refused",
            "1: the watched manifests are refused, and what was accepted before holds",
            last_error.is_some().into(),
        )?;
        page.counter("weir_changes_refused", "Changes refused since the agent started", *refused)?;
        page.counter(
            "weir_interfaces_repaired",
            "Interfaces that lost their programs and got them again, since the agent started",
            *repaired,
        )?;
        page.counters(
            "weir_forwarded_packets",
            "Packets that went on",
            forwarded.iter().map(|each| (of_hook(&each.hook), each.packets)),
        )?;
        page.counters(
            "weir_forwarded_bytes",
            "Bytes that went on",
            forwarded.iter().map(|each| (of_hook(&each.hook), each.bytes)),
        )?;
        page.counters(
            "weir_dropped_packets",
            "Packets that were dropped",
            drops.iter().map(|each| (of_drop(each), each.packets)),
        )?;
        page.counters(
            "weir_dropped_bytes",
            "Bytes that were dropped",
            drops.iter().map(|each| (of_drop(each), each.bytes)),
        )?;
        page.gauges(
            "weir_map_elements",
            "Elements of a map in use",
            maps.iter().map(|each| (of_map(each), each.used)),
        )?;
        page.gauges(
            "weir_map_capacity",
            "Elements that a map has room for",
            maps.iter().map(|each| (of_map(each), each.capacity)),
        )
    }
}

fn of_hook(hook: &str) -> Vec<(&'static str, &str)> {
    vec![("hook", hook)]
}

fn of_drop(drop: &Dropped) -> Vec<(&'static str, &str)> {
    vec![("hook", &drop.hook), ("reason", &drop.reason)]
}

fn of_map(usage: &MapUsage) -> Vec<(&'static str, &str)> {
    vec![("map", &usage.map)]
}

/// A page that is being written. What is written to it is a `String` in the end, and takes everything.
struct Page<'p>(DescriptorEncoder<'p>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'s>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// The name gets the suffix `_total`, as the format asks.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut counter = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'s>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;
    use crate::protocol::Forwarded;

    fn status() -> Status {
        Status {
            node: "node-a".into(),
            version: "0.1.0".into(),
            revision: 7,
            pods_enforced: 3,
            pods_waiting: [("demo/late".to_owned(), "no interface".to_owned())].into(),
            forwarded: vec![Forwarded { hook: "from_pod".into(), packets: 5, bytes: 300 }],
            drops: vec![Dropped {
                hook: "to_pod".into(),
                reason: "POLICY_DENIED".into(),
                explanation: "no rule allows it".into(),
                packets: 2,
                bytes: 120,
            }],
            maps: vec![MapUsage { map: "FLOWS_V4".into(), used: 4, capacity: 8 }],
            ..Status::default()
        }
    }

    #[test]
    fn every_figure_of_a_status_has_its_line() {
        let page = text(status());

        for line in [
            r#"weir_build{node="node-a",version="0.1.0"} 1"#,
            "weir_revision 7",
            r#"weir_pods{state="enforced"} 3"#,
            r#"weir_pods{state="waiting"} 1"#,
            "weir_changes_refused_total 0",
            r#"weir_forwarded_packets_total{hook="from_pod"} 5"#,
            r#"weir_forwarded_bytes_total{hook="from_pod"} 300"#,
            r#"weir_dropped_packets_total{hook="to_pod",reason="POLICY_DENIED"} 2"#,
            r#"weir_dropped_bytes_total{hook="to_pod",reason="POLICY_DENIED"} 120"#,
            r#"weir_map_elements{map="FLOWS_V4"} 4"#,
            r#"weir_map_capacity{map="FLOWS_V4"} 8"#,
        ] {
            assert!(page.lines().any(|each| each == line), "{line} is not in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[tokio::test]
    async fn the_page_is_the_agents_status_and_there_is_no_other() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (send, mut commands) = mpsc::channel(1);
        let server = tokio::spawn(serve(listener, send));
        let agent = tokio::spawn(async move {
            while let Some(Command { request, answer, .. }) = commands.recv().await {
                assert!(matches!(request, Request::Status), "{request:?}");
                answer.send(protocol::Response::Status(Box::new(status()))).unwrap();
            }
        });
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };

        let page = get("/metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0"), "{page}");
        assert!(page.contains("\nweir_revision 7\n"), "{page}");
        assert!(get("/").await.starts_with("HTTP/1.1 404 "));

        agent.abort();
        drop(agent.await);
        assert!(get("/metrics").await.starts_with("HTTP/1.1 503 "), "the agent is ending");
        server.abort();
    }
}
