//! Many TCP connections at once, each of which knows all the time who answers it.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime,
    task::{self, LocalSet},
    time,
};

use super::netns;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often those who serve and ask look whether they are to end.
const TICK: Duration = Duration::from_millis(20);

/// A server that answers every byte with its number.
pub struct Host {
    _thread: Background,
}

impl Host {
    /// Listens on a port in a namespace, over both families.
    pub fn open(netns: &str, port: u16, number: u8) -> Self {
        let listen = move || async move {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
            task::spawn_local(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    task::spawn_local(async move {
                        let mut asked = [0; 1];
                        while let Ok(1) = stream.read(&mut asked).await {
                            if stream.write_all(&[number]).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            });
            Ok(())
        };
        Self { _thread: Background::start(netns, listen) }
    }
}

/// What became of one of many connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// The numbers of the servers that answered.
    pub servers: BTreeSet<u8>,
    /// How often one did.
    pub answers: u64,
    /// What ended it, before its time.
    pub end: Option<String>,
}

/// Connections that are kept open, and asked over and over.
pub struct Crowd {
    stories: Arc<Vec<Mutex<Story>>>,
    _thread: Background,
}

impl Crowd {
    /// Opens `count` connections from a namespace; returns once each has had its first answer or has failed.
    pub fn open(netns: &str, targets: &[SocketAddr], count: usize, pause: Duration) -> Self {
        let stories: Arc<Vec<_>> = Arc::new((0..count).map(|_| Mutex::default()).collect());
        let (targets, told) = (targets.to_vec(), stories.clone());
        let open = move || async move {
            for number in 0..count {
                let (target, told) = (targets[number % targets.len()], told.clone());
                task::spawn_local(async move {
                    let end = keep_asking(target, pause, &told[number]).await.err();
                    lock(&told[number]).end = end.map(|error| error.to_string());
                });
            }
            Ok(())
        };
        let crowd = Self { stories, _thread: Background::start(netns, open) };
        crowd.advance(1);
        crowd
    }

    /// Waits until each has been answered so many times more.
    pub fn advance(&self, count: u64) {
        let before: Vec<_> = self.stories().iter().map(|story| story.answers).collect();
        super::wait_until("every connection is answered", || {
            let mut stories = self.stories.iter().map(lock).zip(&before);
            stories.all(|(story, before)| story.end.is_some() || story.answers >= before + count)
        });
    }

    /// What became of them so far.
    pub fn stories(&self) -> Vec<Story> {
        self.stories.iter().map(|story| lock(story).clone()).collect()
    }

    /// All of them must be open, and have had one server all the time.
    pub fn assert_unbroken(&self) {
        let broken: Vec<_> = self
            .stories()
            .into_iter()
            .filter(|story| story.end.is_some() || story.servers.len() != 1)
            .collect();
        assert!(broken.is_empty(), "{} of {}: {:?}", broken.len(), self.stories.len(), broken.first());
    }
}

/// A connection that was opened, asked once, and closed.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When it was asked for.
    pub begun: Instant,
    /// Who answered.
    pub server: Result<u8, String>,
}

/// New connections, one after the other.
pub struct Visitors {
    visits: Arc<Mutex<Vec<Visit>>>,
    _thread: Background,
}

impl Visitors {
    /// Opens connections from a namespace from now on.
    pub fn start(netns: &str, target: SocketAddr, pause: Duration) -> Self {
        let visits = Arc::<Mutex<Vec<Visit>>>::default();
        let told = visits.clone();
        let begin = move || async move {
            task::spawn_local(async move {
                loop {
                    let begun = Instant::now();
                    let server = visit(target).await.map_err(|error| error.to_string());
                    told.lock().unwrap_or_else(PoisonError::into_inner).push(Visit { begun, server });
                    time::sleep(pause).await;
                }
            });
            Ok(())
        };
        Self { visits, _thread: Background::start(netns, begin) }
    }

    /// Waits for so many more.
    pub fn advance(&self, count: usize) {
        let goal = self.visits().len() + count;
        super::wait_until("connections are opened", || self.visits().len() >= goal);
    }

    /// Those so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn keep_asking(target: SocketAddr, pause: Duration, story: &Mutex<Story>) -> io::Result<()> {
    let mut stream = time::timeout(PATIENCE, TcpStream::connect(target)).await??;
    loop {
        let server = ask(&mut stream).await?;
        {
            let mut story = lock(story);
            story.servers.insert(server);
            story.answers += 1;
        }
        time::sleep(pause).await;
    }
}

async fn visit(target: SocketAddr) -> io::Result<u8> {
    let mut stream = time::timeout(PATIENCE, TcpStream::connect(target)).await??;
    ask(&mut stream).await
}

async fn ask(stream: &mut TcpStream) -> io::Result<u8> {
    stream.write_all(b"?").await?;
    time::timeout(PATIENCE, stream.read_u8()).await?
}

fn lock(story: &Mutex<Story>) -> std::sync::MutexGuard<'_, Story> {
    story.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread in a namespace with a runtime of its own, ended and waited for when this is dropped.
struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Returns once `begin` is done; what it spawned goes on.
    fn start<F: Future<Output = io::Result<()>>>(
        netns: &str,
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, netns) = (stop.clone(), netns.to_owned());
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            netns::enter(&netns).unwrap();
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                begin().await.unwrap();
                let _ = ready.send(());
                while !flag.load(Ordering::Relaxed) {
                    time::sleep(TICK).await;
                }
            });
        });
        is_ready.recv().expect("it begins");
        Self { stop, thread: Some(thread) }
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
