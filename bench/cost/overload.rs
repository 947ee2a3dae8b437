//! More uplinks than can be done, and then ordinary ones: what is told, how soon, and what it takes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use limpet_shared::Eui64;

use crate::{
    Outcome, Plan,
    field::Shape,
    load::{Played, percentiles},
    uplinks::{Site, joined},
};

const DEVICES: usize = 10_000;
/// Heard by one gateway each.
const TOO_MANY: u32 = 12_000;
const ORDINARY: u32 = 500;
/// One in so many of the ordinary ones is confirmed.
const CONFIRMED: u32 = 20;
/// Rates of which the best that is held is looked for, and for how long.
const HELD: [u32; 3] = [3_000, 4_000, 5_000];
const LOOK: Duration = Duration::from_secs(8);
/// For how long events are waited for when none comes any more.
const QUIET: Duration = Duration::from_secs(15);
/// A class A device listens for RX2 until then, at an RX1 delay of 1 s.
const RX2: Duration = Duration::from_secs(2);

pub async fn run(plan: &Plan) -> Outcome<()> {
    let mut site = Site::start(plan, "SQLite, 1 worker", 1, DEVICES, None).await?;
    println!("\n### More uplinks than can be done, heard by one gateway each\n");
    let mut best: f64 = 0.0;
    for rate in HELD {
        let told = site.pace(rate).await?;
        println!("{rate}/s for {LOOK:?}: {told:.0}/s told while they came.");
        best = best.max(told);
    }
    let (long, after) = if plan.long { (30, 30) } else { (10, 20) };
    site.overload(Duration::from_secs(long), Duration::from_secs(after), best).await
}

impl Site {
    /// Events told in a second while so many uplinks come in one.
    async fn pace(&mut self, rate: u32) -> Outcome<f64> {
        let (shots, written) = self.field.shots(rate, LOOK, Shape { copies: 1, confirmed: None })?;
        self.gateways.pull();
        let before = self.sink.told().len();
        let began = Instant::now();
        let playing = self.gateways.play(shots)?;
        tokio::time::sleep_until((began + LOOK).into()).await;
        let told = self.sink.told().len() - before;
        joined(playing).await?;
        self.until_quiet(before + written.len()).await;
        Ok(told as f64 / LOOK.as_secs_f64())
    }

    /// Until so many are told, or nothing comes any more. The most memory that balancer and worker held meanwhile, MB.
    async fn until_quiet(&self, all: usize) -> [f64; 2] {
        let (mut last, mut since, mut most) = (0, Instant::now(), [0.0; 2]);
        while last < all && since.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let told = self.sink.told().len();
            if told > last {
                (last, since) = (told, Instant::now());
            }
            let workers: f64 = self.servers.workers.iter().map(|worker| worker.memory()).sum();
            most = [f64::max(most[0], self.servers.balancer.memory()), f64::max(most[1], workers)];
        }
        most
    }

    async fn overload(&mut self, long: Duration, after: Duration, best: f64) -> Outcome<()> {
        let (mut shots, many) = self.field.shots(TOO_MANY, long, Shape { copies: 1, confirmed: None })?;
        let calm = Shape { copies: 1, confirmed: Some(CONFIRMED) };
        let (later, ordinary) = self.field.shots(ORDINARY, after, calm)?;
        let first_calm = shots.len();
        shots.extend(later.into_iter().map(|mut shot| {
            shot.at += long;
            shot
        }));
        self.gateways.pull();
        let before = self.sink.told().len();
        let all = before + many.len() + ordinary.len();
        let began = Instant::now();
        let playing = self.gateways.play(shots)?;
        let in_time = async {
            tokio::time::sleep_until((began + long).into()).await;
            self.sink.told().len() - before
        };
        let (told, memory) = tokio::join!(in_time, self.until_quiet(all));
        let goodput = told as f64 / long.as_secs_f64();
        let played = joined(playing).await?;
        println!(
            "\n{TOO_MANY}/s for {long:?}: {goodput:.0}/s told meanwhile, {:.0} % of the best rate; all {} after {:?}.",
            100.0 * goodput / best,
            self.counted(before, all),
            self.sink.told().values().map(|(at, _)| at.duration_since(began)).max().unwrap_or_default(),
        );
        println!("{}", acks(&played, 0..first_calm));
        let times = |written: &[crate::field::Written], offset: usize, from: Duration, to: Duration| {
            let told = self.sink.told();
            let of = |one: &crate::field::Written| {
                let sent = *played.sent.get(one.first + offset)?;
                let at = sent.duration_since(began);
                if at < from || at >= to {
                    return None;
                }
                Some(told.get(&one.uplink)?.0.saturating_duration_since(sent))
            };
            percentiles(written.iter().filter_map(of).collect())
        };
        let second = Duration::from_secs(1);
        println!("Of them p50 / p99 {}.", millis(times(&many, 0, Duration::ZERO, long)));
        println!(
            "{ORDINARY}/s after it: in the first second {}, from the second one on {}. {}",
            millis(times(&ordinary, first_calm, long, long + second)),
            millis(times(&ordinary, first_calm, long + second, Duration::MAX)),
            acks(&played, first_calm..played.acked.len()),
        );
        let answered = |number: usize| {
            let one = ordinary.get(number)?;
            let sent = *played.sent.get(one.first + first_calm)?;
            let of = played.downlinks.iter().filter(|(device, _)| *device == one.device);
            of.map(|(_, at)| *at).find(|at| *at >= sent && at.duration_since(sent) < RX2)
        };
        let confirmed: Vec<usize> = (0..ordinary.len()).step_by(CONFIRMED as usize).collect();
        let in_window = confirmed.iter().filter(|number| answered(**number).is_some()).count();
        println!("Confirmed ones of these answered before RX2: {in_window} of {}.", confirmed.len());
        println!("Memory at most: balancer {:.0} MB, worker {:.0} MB.", memory[0], memory[1]);
        println!("Told once more: {} under another id. Passed by a later one: {}.", self.sink.odd(), self.passed());
        Ok(())
    }

    fn counted(&self, before: usize, all: usize) -> String {
        format!("{} of {}", self.sink.told().len() - before, all - before)
    }

    /// Uplinks that were told after one that their device had sent later.
    fn passed(&self) -> usize {
        let mut of: HashMap<Eui64, Vec<(Instant, u32)>> = HashMap::new();
        for ((device, fcnt), (at, _)) in self.sink.told().iter() {
            of.entry(*device).or_default().push((*at, *fcnt));
        }
        let passed = |mut told: Vec<(Instant, u32)>| {
            told.sort_unstable();
            let mut highest = 0;
            told.iter()
                .filter(|(_, fcnt)| {
                    highest = highest.max(*fcnt);
                    *fcnt < highest
                })
                .count()
        };
        of.into_values().map(passed).sum()
    }
}

fn millis([half, most]: [Duration; 2]) -> String {
    format!("{:.0} / {:.0} ms", half.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3)
}

fn acks(played: &Played, shots: std::ops::Range<usize>) -> String {
    let all = played.acked.get(shots).unwrap_or_default();
    let acked: Vec<Duration> = all.iter().copied().flatten().collect();
    let (count, latest) = (acked.len(), acked.iter().max().copied().unwrap_or_default());
    let [half, most] = percentiles(acked);
    format!(
        "PUSH_ACKs: {count} of {}, {}, the latest {:.0} ms.",
        all.len(),
        millis([half, most]),
        latest.as_secs_f64() * 1e3
    )
}
