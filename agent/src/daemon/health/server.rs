//! `spec.healthCheckNodePort`: the port on which a load balancer asks whether this node has endpoints of a service.
//! The answers are kube-proxy's.

use std::{
    collections::BTreeMap,
    future, io,
    net::{Ipv4Addr, Ipv6Addr},
};

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::AbortHandle};
use tracing::{info, warn};

use crate::{
    daemon::http::{self, Answer},
    datapath::HealthCheck,
};

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
const NO_SNIFFING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

type Checks = BTreeMap<u16, HealthCheck>;

/// The servers of this node, one for each port.
#[derive(Debug)]
pub(in crate::daemon) struct HealthServers {
    runtime: Handle,
    servers: BTreeMap<u16, Server>,
    /// Why a port is not served.
    failures: BTreeMap<u16, String>,
}

#[derive(Debug)]
struct Server {
    check: watch::Sender<HealthCheck>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthServers {
    /// None yet; they run on `runtime`.
    pub(in crate::daemon) fn new(runtime: Handle) -> Self {
        Self { runtime, servers: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// Serves these checks and no others. A port that another program has is tried again at every call.
    pub(in crate::daemon) fn follow(&mut self, wanted: &Checks) {
        self.servers.retain(|port, _| wanted.contains_key(port));
        self.failures.retain(|port, _| wanted.contains_key(port));
        for (port, check) in wanted {
            if let Some(server) = self.servers.get(port) {
                server.check.send_if_modified(|old| {
                    let changed = old != check;
                    old.clone_from(check);
                    changed
                });
                continue;
            }
            match self.serve(*port, check) {
                Ok(server) => {
                    if self.failures.remove(port).is_some() {
                        info!(port, service = %check.service, "the health check port is free now, and served");
                    }
                    self.servers.insert(*port, server);
                }
                Err(error) => {
                    let failure = format!(
                        "service {}: healthCheckNodePort {port} is not served: {error}; load balancers take this \
                         node for one without endpoints until the port is free",
                        check.service
                    );
                    if self.failures.get(port) != Some(&failure) {
                        warn!("{failure}");
                        self.failures.insert(*port, failure);
                    }
                }
            }
        }
    }

    /// Which ports are not served, for people.
    pub(in crate::daemon) fn problems(&self) -> Vec<String> {
        self.failures.values().cloned().collect()
    }

    fn serve(&self, port: u16, check: &HealthCheck) -> io::Result<Server> {
        let listener = bind(port)?;
        let _context = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let (sender, check) = watch::channel(check.clone());
        let answer = move |_| future::ready(answer(&check.borrow()));
        let task = self.runtime.spawn(http::serve(listener, "a health check port", answer)).abort_handle();
        Ok(Server { check: sender, task })
    }
}

/// On all addresses of the node, of both families where the kernel has both.
fn bind(port: u16) -> io::Result<std::net::TcpListener> {
    let listener = match std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        bound => bound,
    }?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What a load balancer is told, whatever it asks for.
fn answer(check: &HealthCheck) -> Answer {
    let HealthCheck { service, local_endpoints } = check;
    let status = match local_endpoints {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let body = json!({
        "service": { "namespace": service.namespace, "name": service.name },
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": true,
    });
    let mut response = Answer::new(body.to_string().into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(NO_SNIFFING.0, NO_SNIFFING.1);
    headers.insert(WEIGHT, HeaderValue::from(*local_endpoints));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        time::Duration,
    };

    use super::*;
    use crate::cluster::Name;

    fn check(local_endpoints: usize) -> HealthCheck {
        let service = Name { namespace: "demo".into(), name: "web".into() };
        HealthCheck { service, local_endpoints }
    }

    /// A port that nobody has just now.
    fn free_port() -> u16 {
        bind(0).unwrap().local_addr().unwrap().port()
    }

    fn get(port: u16) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn the_answer_is_as_kube_proxys() {
        let runtime = runtime();
        let mut servers = HealthServers::new(runtime.handle().clone());
        let port = free_port();

        servers.follow(&BTreeMap::from([(port, check(2))]));
        let some = get(port).unwrap();
        servers.follow(&BTreeMap::from([(port, check(0))]));
        let none = get(port).unwrap();

        assert_eq!(servers.problems(), [""; 0]);
        assert!(some.starts_with("HTTP/1.1 200 OK\r\n"), "{some}");
        assert!(some.contains("x-load-balancing-endpoint-weight: 2\r\n"), "{some}");
        assert!(some.contains("content-type: application/json\r\n"), "{some}");
        assert!(none.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{none}");
        assert!(none.contains("x-load-balancing-endpoint-weight: 0\r\n"), "{none}");
        let body: serde_json::Value = serde_json::from_str(none.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(
            body,
            json!({ "service": { "namespace": "demo", "name": "web" }, "localEndpoints": 0, "serviceProxyHealthy": true })
        );
    }

    #[test]
    fn a_port_is_served_while_a_service_has_it() {
        let runtime = runtime();
        let mut servers = HealthServers::new(runtime.handle().clone());
        let port = free_port();

        servers.follow(&BTreeMap::from([(port, check(1))]));
        assert!(get(port).is_ok());
        servers.follow(&BTreeMap::new());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while get(port).is_ok() {
            assert!(std::time::Instant::now() < deadline, "it is still served");
        }
    }

    #[test]
    fn a_port_that_another_program_has_is_a_problem_until_it_is_free() {
        let runtime = runtime();
        let mut servers = HealthServers::new(runtime.handle().clone());
        let other = bind(0).unwrap();
        let port = other.local_addr().unwrap().port();
        let wanted = BTreeMap::from([(port, check(1))]);

        servers.follow(&wanted);
        let problems = servers.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains(&format!("service demo/web: healthCheckNodePort {port} is not served")));

        drop(other);
        servers.follow(&wanted);
        assert_eq!(servers.problems(), [""; 0]);
        assert!(get(port).is_ok());
    }
}
