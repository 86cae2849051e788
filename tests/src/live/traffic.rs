//! Flows whose every packet is accounted for.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::netns;

/// How long a reader sleeps before it looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);
/// How long a packet may be under way.
const FLIGHT: Duration = Duration::from_millis(300);
/// How long a TCP segment may take, retransmissions of a starved machine counted in.
const SEGMENT: Duration = Duration::from_secs(5);
/// Enough for every packet that comes while the reader waits for a processor.
const BUFFER: usize = 8 << 20;

/// Sender and number of a datagram.
type Datagram = (u64, u64);

/// Receives numbered datagrams on a UDP port, over both families, and sends each back.
pub struct Sink {
    received: Arc<Mutex<BTreeSet<Datagram>>>,
    _reader: Background,
}

impl Sink {
    /// Opens a port in a namespace.
    pub fn open(netns: &str, port: u16) -> Self {
        let socket = udp(netns, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let received = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = received.clone();
        let reader = Background::start(move |stop| {
            let mut payload = [0; 16];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((16, sender)) = socket.recv_from(&mut payload) {
                    seen.lock().unwrap().insert(parse(&payload));
                    // Lost where the way back is closed: that is for the test to find.
                    let _ = socket.send_to(&payload, sender);
                }
            }
        });
        Self { received, _reader: reader }
    }

    /// The numbers that came from a sender.
    pub fn from(&self, sender: &Sender) -> BTreeSet<u64> {
        let all = self.received.lock().unwrap();
        all.range((sender.id, 0)..=(sender.id, u64::MAX)).map(|(_, number)| *number).collect()
    }
}

/// Sends numbered datagrams from one socket, a thousand a second or as fast as it can.
pub struct Sender {
    id: u64,
    state: Arc<State>,
    threads: Vec<Background>,
}

#[derive(Default)]
struct State {
    /// The number of the last datagram that left; they count from 1.
    sent: AtomicU64,
    answered: Mutex<BTreeSet<u64>>,
}

impl Sender {
    /// Starts sending, a thousand datagrams a second.
    pub fn start(netns: &str, target: SocketAddr) -> Self {
        Self::with_pace(netns, target, Duration::from_millis(1))
    }

    /// Starts sending with a pause between datagrams. What cannot leave, for there is no way or no link, is not sent.
    pub fn with_pace(netns: &str, target: SocketAddr, pause: Duration) -> Self {
        let Self { id, state, .. } = Self::new();
        let socket = udp(netns, unspecified(target));
        let answers = socket.try_clone().unwrap();
        let (sending, reading) = (state.clone(), state.clone());
        let sender = Background::start(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                let number = sending.sent.load(Ordering::Relaxed) + 1;
                if socket.send_to(&payload(id, number), target).is_ok() {
                    sending.sent.store(number, Ordering::SeqCst);
                }
                thread::sleep(pause);
            }
        });
        let reader = Background::start(move |stop| {
            let mut payload = [0; 16];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((16, _)) = answers.recv_from(&mut payload) {
                    reading.answered.lock().unwrap().insert(parse(&payload).1);
                }
            }
        });
        Self { id, state, threads: vec![sender, reader] }
    }

    fn new() -> Self {
        static SENDERS: AtomicU64 = AtomicU64::new(0);
        let id = SENDERS.fetch_add(1, Ordering::Relaxed);
        Self { id, state: Arc::default(), threads: Vec::new() }
    }

    /// The number of the last datagram that was sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// The numbers that came back.
    pub fn answered(&self) -> BTreeSet<u64> {
        self.state.answered.lock().unwrap().clone()
    }

    /// Waits until so many more have been sent.
    pub fn advance(&self, count: u64) {
        let goal = self.sent() + count;
        super::wait_until("a sender sends", || self.sent() >= goal);
    }

    /// Ends sending, and waits until what is under way has arrived. Returns how many were sent.
    pub fn finish(&mut self) -> u64 {
        drop(self.threads.remove(0));
        let mut before = self.answered().len();
        let mut quiet = Instant::now();
        while (before as u64) < self.sent() && quiet.elapsed() < FLIGHT {
            thread::sleep(TICK);
            let now = self.answered().len();
            if now != before {
                (before, quiet) = (now, Instant::now());
            }
        }
        self.threads.clear();
        self.sent()
    }

    /// Ends sending; every datagram must have arrived, and come back.
    pub fn finish_whole(&mut self, sink: &Sink) {
        let sent = self.finish();
        assert!(sent > 0, "nothing was sent");
        let all: BTreeSet<u64> = (1..=sent).collect();
        let missing: Vec<_> = all.difference(&sink.from(self)).copied().collect();
        assert!(missing.is_empty(), "of {sent}, {} did not arrive: {missing:?}", missing.len());
        let unanswered: Vec<_> = all.difference(&self.answered()).copied().collect();
        assert!(unanswered.is_empty(), "of {sent}, {} did not come back: {unanswered:?}", unanswered.len());
    }

    /// Ends sending; nothing must have arrived.
    pub fn finish_empty(&mut self, sink: &Sink) {
        let sent = self.finish();
        assert!(sent > 0, "nothing was sent");
        let leaked = sink.from(self);
        assert!(leaked.is_empty(), "of {sent}, {} arrived: {leaked:?}", leaked.len());
    }
}

/// Sends a datagram from each of so many sockets.
pub fn spray(netns: &str, target: SocketAddr, sockets: u64) -> Sender {
    let sender = Sender::new();
    for number in 1..=sockets {
        udp(netns, unspecified(target)).send_to(&payload(sender.id, number), target).unwrap();
    }
    sender.state.sent.store(sockets, Ordering::SeqCst);
    thread::sleep(FLIGHT);
    sender
}

/// Answers every byte on a TCP port, over both families.
pub struct Echo {
    _acceptor: Background,
}

impl Echo {
    /// Opens a port in a namespace.
    pub fn open(netns: &str, port: u16) -> Self {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = netns::within(netns, || Ok(TcpListener::bind(address)?)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let acceptor = Background::start(move |stop| {
            let mut connections = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => connections.push(Background::start(move |stop| echo(stream, stop))),
                    Err(_) => thread::sleep(TICK),
                }
            }
        });
        Self { _acceptor: acceptor }
    }
}

/// A TCP connection that lasts.
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects from a namespace.
    pub fn open(netns: &str, target: SocketAddr) -> Self {
        let stream = netns::within(netns, || Ok(TcpStream::connect_timeout(&target, SEGMENT)?)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Says something and waits for the echo.
    pub fn is_alive(&mut self) -> bool {
        self.answers_within(SEGMENT)
    }

    /// Says something; how it ends where no echo comes.
    pub fn says(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(SEGMENT))?;
        self.stream.write_all(b"ping")?;
        self.stream.read_exact(&mut [0; 4])
    }

    /// Says much at once, and waits for all of the echo.
    pub fn carries(&mut self, data: &[u8]) -> bool {
        self.stream.set_read_timeout(Some(SEGMENT)).unwrap();
        self.stream.set_write_timeout(Some(SEGMENT)).unwrap();
        let mut writer = self.stream.try_clone().unwrap();
        let mut echo = vec![0; data.len()];
        thread::scope(|scope| {
            let written = scope.spawn(move || writer.write_all(data).is_ok());
            let is_read = self.stream.read_exact(&mut echo).is_ok();
            written.join().unwrap() && is_read && echo == data
        })
    }

    /// As [`is_alive`](Self::is_alive); silence for a while is enough to say no.
    pub fn is_cut(&mut self) -> bool {
        !self.answers_within(FLIGHT)
    }

    fn answers_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let mut answer = [0; 4];
        self.stream.write_all(b"ping").is_ok() && self.stream.read_exact(&mut answer).is_ok()
    }
}

/// A UDP socket in a namespace, which wakes up now and then.
fn udp(netns: &str, local: SocketAddr) -> UdpSocket {
    let socket = netns::within(netns, || Ok(UdpSocket::bind(local)?)).unwrap();
    setsockopt(&socket, RcvBufForce, &BUFFER).unwrap();
    socket.set_read_timeout(Some(TICK)).unwrap();
    socket
}

fn unspecified(target: SocketAddr) -> SocketAddr {
    match target.ip() {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    }
}

fn payload(id: u64, number: u64) -> [u8; 16] {
    (u128::from(id) << 64 | u128::from(number)).to_be_bytes()
}

fn parse(payload: &[u8; 16]) -> Datagram {
    let whole = u128::from_be_bytes(*payload);
    ((whole >> 64) as u64, whole as u64)
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
}

/// A thread that is told to end, and waited for, when this is dropped.
struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        Self { stop, thread: Some(thread::spawn(move || work(&flag))) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
