//! An output that nobody has to read. Whoever writes hands a line over and goes on; one thread waits for the reader, if there
//! is one. What does not fit while it waits is dropped, and counted.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Lines that wait for the reader, and their bytes.
const LINES: usize = 4_096;
const BYTES: usize = 4 << 20;
/// How often it is looked whether there is room for what is said last.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Where lines go at last.
type Sink = Box<dyn FnMut(&[u8]) + Send>;

enum Item {
    Line(Vec<u8>),
    /// All before it is written.
    Mark(SyncSender<()>),
}

/// One end for any number of writers. Cheap to clone.
#[derive(Clone)]
pub struct Outlet {
    queue: SyncSender<Item>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

impl Outlet {
    /// Standard output.
    pub fn stdout() -> Self {
        static OUTLET: OnceLock<Outlet> = OnceLock::new();
        OUTLET.get_or_init(|| Self::start(Box::new(|line| write(rustix::stdio::stdout(), line)), |_| {})).clone()
    }

    /// Standard error, where log lines go; the log itself tells when some of it was lost.
    pub fn stderr() -> Self {
        static OUTLET: OnceLock<Outlet> = OnceLock::new();
        let tell = |lost| {
            tracing::warn!(lines_lost = lost, "nobody read the log for a while, and what did not fit was dropped");
        };
        OUTLET.get_or_init(|| Self::start(Box::new(|line| write(rustix::stdio::stderr(), line)), tell)).clone()
    }

    /// `tell` is called with how many lines were lost, once there is room again to say so.
    fn start(sink: Sink, tell: impl Fn(u64) + Send + 'static) -> Self {
        let (queue, lines) = sync_channel(LINES);
        let state = Arc::<State>::default();
        let shared = state.clone();
        let run = move || run(&lines, &shared, sink, tell);
        // Without a thread nothing is written; the process goes on all the same, and what it says counts as lost.
        let _ = std::thread::Builder::new().name("limpet-output".into()).spawn(run);
        Self { queue, state }
    }

    /// Hands over some text; never waits.
    pub fn write(&self, text: &[u8]) {
        let fits = self.state.bytes.load(SeqCst) + text.len() <= BYTES;
        self.state.lines.fetch_add(1, SeqCst);
        self.state.bytes.fetch_add(text.len(), SeqCst);
        if !fits || self.queue.try_send(Item::Line(text.to_owned())).is_err() {
            self.state.taken(text.len());
            self.state.lost.fetch_add(1, SeqCst);
        }
    }

    /// Hands over what a process says last. It waits for room, but not for long, and has no bound of bytes.
    pub fn write_last(&self, text: &[u8], patience: Duration) {
        self.state.lines.fetch_add(1, SeqCst);
        self.state.bytes.fetch_add(text.len(), SeqCst);
        if !self.hand_over(Item::Line(text.to_owned()), Instant::now() + patience) {
            self.state.taken(text.len());
            self.state.lost.fetch_add(1, SeqCst);
        }
    }

    /// Waits until all that was handed over is written, but not for long: perhaps nobody reads it.
    pub fn finish(&self, patience: Duration) {
        let (until, (mark, written)) = (Instant::now() + patience, sync_channel(1));
        if self.hand_over(Item::Mark(mark), until) {
            let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// A full queue may be one that its reader has just turned to.
    fn hand_over(&self, mut item: Item, until: Instant) -> bool {
        loop {
            match self.queue.try_send(item) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < until => item = back,
                Err(_) => return false,
            }
            // Woken early or not, it only looks again.
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl State {
    fn taken(&self, bytes: usize) {
        self.lines.fetch_sub(1, SeqCst);
        self.bytes.fetch_sub(bytes, SeqCst);
    }

    /// How many lines were lost, if there is room to say so.
    fn to_tell(&self) -> Option<u64> {
        let room = self.lines.load(SeqCst) <= LINES / 2 && self.bytes.load(SeqCst) <= BYTES / 2;
        if room && self.lost.load(SeqCst) > 0 { Some(self.lost.swap(0, SeqCst)) } else { None }
    }
}

fn run(lines: &Receiver<Item>, state: &State, mut sink: Sink, tell: impl Fn(u64)) {
    while let Ok(item) = lines.recv() {
        match item {
            Item::Line(line) => {
                sink(&line);
                state.taken(line.len());
            }
            // Whoever asked may have gone.
            Item::Mark(written) => {
                let _ = written.try_send(());
            }
        }
        if let Some(lost) = state.to_tell() {
            tell(lost);
        }
    }
}

/// Writes all of it, or as much as there is a reader for.
fn write(to: BorrowedFd<'_>, mut text: &[u8]) {
    while !text.is_empty() {
        match rustix::io::write(to, text) {
            Ok(written) => text = &text[written..],
            Err(Errno::INTR) => {}
            // Somebody who shares this end does not want to wait; we do.
            Err(Errno::AGAIN) => {
                if poll(&mut [PollFd::new(&to, PollFlags::OUT)], None).is_err_and(|e| e != Errno::INTR) {
                    return;
                }
            }
            // The reader is gone, or the disk is full: there is nobody to tell.
            Err(_) => return,
        }
    }
}

/// One event of the log, which its formatter writes at once.
impl io::Write for Outlet {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        Self::write(self, text);
        Ok(text.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    #[test]
    fn without_a_reader_nobody_waits_and_what_was_lost_is_told_when_it_goes_on() {
        let (go, wait) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = written.clone();
        let sink: Sink = Box::new(move |line| {
            // The first line finds no reader until there is one; later ones find it.
            let _ = wait.recv();
            kept.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
        });
        let (told, lost) = mpsc::channel();
        let outlet = Outlet::start(sink, move |n| told.send(n).unwrap());
        const ALL: u64 = LINES as u64 + 1_000;
        for number in 0..ALL {
            outlet.write(format!("{number}\n").as_bytes());
        }
        outlet.finish(Duration::ZERO);
        drop(go);
        let lost = lost.recv().unwrap();
        outlet.finish(Duration::from_secs(60));
        let written = written.lock().unwrap();
        // The line that the thread holds is in no queue.
        assert!((999..=1_000).contains(&lost), "{lost}");
        assert_eq!(written.len() as u64 + lost, ALL);
        assert_eq!((written[0].as_str(), written[4_000].as_str()), ("0\n", "4000\n"));
    }

    #[test]
    fn what_is_said_last_waits_for_a_reader_that_comes_late() {
        let (go, wait) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = written.clone();
        let sink: Sink = Box::new(move |line| {
            let _ = wait.recv();
            kept.lock().unwrap().push(line.to_vec());
        });
        let outlet = Outlet::start(sink, |_| {});
        while outlet.state.lost.load(SeqCst) == 0 {
            outlet.write(b"one of many\n");
        }
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(go);
        });
        outlet.write_last(b"the last\n", Duration::from_secs(60));
        outlet.finish(Duration::from_secs(60));
        assert_eq!(written.lock().unwrap().last().map(Vec::as_slice), Some(&b"the last\n"[..]));
        reader.join().unwrap();
    }

    #[test]
    fn few_long_lines_are_bounded_too() {
        let (go, wait) = mpsc::channel::<()>();
        let outlet = Outlet::start(
            Box::new(move |_| {
                let _ = wait.recv();
            }),
            |_| {},
        );
        for _ in 0..10 {
            outlet.write(&vec![b'x'; BYTES / 4]);
        }
        assert!(outlet.state.bytes.load(SeqCst) <= BYTES && outlet.state.lost.load(SeqCst) >= 5);
        drop(go);
    }
}
