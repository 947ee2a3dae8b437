use futures_util::future::join;
use limpet_shared::Eui64;
use limpet_worker_core::model::SessionId;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::*;

const ADDR: DevAddr = DevAddr(1);

fn session(id: u64) -> SessionKey {
    SessionKey { dev_addr: ADDR, dev_eui: Eui64(2), id: SessionId(id) }
}

async fn secs(number: u64) {
    sleep(Duration::from_secs(number)).await;
}

/// Lets all others run until they wait for something.
async fn settle_down() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.0.lock().lanes.is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_frame_waits_for_those_before_it_and_a_young_one_only_for_a_moment() {
    let lanes = Lanes::default();
    let waits = async |age| {
        let (first, mut second) = (lanes.enter(ADDR, Class::Open), lanes.enter(ADDR, Class::Open));
        let began = Instant::now();
        let settle = async {
            secs(20).await;
            drop(first);
        };
        let come = async {
            second.turn(age).await;
            began.elapsed()
        };
        join(settle, come).await.1
    };
    assert_eq!(waits(Duration::from_millis(300)).await, TURN_LIMIT);
    assert_eq!(waits(OLD).await.as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_joins_lets_others_by_when_those_before_it_are_done() {
    let lanes = Lanes::default();
    let [first, copy, mut last] = [(); 3].map(|()| lanes.enter(ADDR, Class::Open));
    drop(copy);
    let began = Instant::now();
    let settle = async {
        secs(7).await;
        drop(first);
    };
    join(settle, last.turn(OLD)).await;
    assert_eq!(began.elapsed().as_secs(), 7);
    // The transmission that it joins may be behind it, as when its own copy was stored first.
    let [early, mut behind] = [(); 2].map(|()| lanes.enter(DevAddr(2), Class::Open));
    drop(early);
    behind.turn(OLD).await;
    assert_eq!(began.elapsed().as_secs(), 7);
}

/// Windows, stores and rounds of the runtime shuffle when frames are ready; what they are accepted in is the order they came in.
#[tokio::test(start_paused = true)]
async fn frames_are_accepted_in_the_order_they_came_in_whatever_is_ready_first() {
    let (lanes, accepted) = (Lanes::default(), Arc::new(Mutex::new(Vec::new())));
    let mut frames = JoinSet::new();
    for number in 0..200_u64 {
        let (mut place, accepted) = (lanes.enter(ADDR, Class::Open), accepted.clone());
        // Of these some are copies of others, and leave again.
        let is_copy = number % 7 == 3;
        frames.spawn(async move {
            sleep(Duration::from_millis(number * 7919 % 997)).await;
            if is_copy {
                return;
            }
            place.turn(OLD).await;
            place.decide(&session(1)).await;
            sleep(Duration::from_millis(number * 31 % 11)).await;
            accepted.lock().push(number);
        });
    }
    frames.join_all().await;
    assert_eq!(*accepted.lock(), (0..200).filter(|number| number % 7 != 3).collect::<Vec<_>>());
    assert!(lanes.is_empty(), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_another_devaddr() {
    let lanes = Lanes::default();
    let _stuck = [(); 1_000].map(|()| lanes.enter(ADDR, Class::Open));
    let began = Instant::now();
    for addr in 2..100 {
        let mut place = lanes.enter(DevAddr(addr), Class::Open);
        place.turn(OLD).await;
        let own = SessionKey { dev_addr: DevAddr(addr), ..session(1) };
        assert!(!place.decide(&own).await);
        place.act(&own, 1);
        assert!(!lanes.is_acting(&session(1), 1));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// As with junk under a device's DevAddr, for a MIC is looked at only when its turn has come.
#[tokio::test(start_paused = true)]
async fn what_was_waited_for_long_enough_holds_up_nobody_else() {
    let lanes = Lanes::default();
    let _stuck = [(); 50].map(|()| lanes.enter(ADDR, Class::Open));
    let mut frame = lanes.enter(ADDR, Class::Open);
    let began = Instant::now();
    frame.turn(Duration::ZERO).await;
    assert_eq!(began.elapsed(), TURN_LIMIT, "however many there are");
    let mut next = lanes.enter(ADDR, Class::Open);
    let settle = async {
        sleep(Duration::from_millis(30)).await;
        drop(frame);
    };
    join(settle, next.turn(OLD)).await;
    assert_eq!(began.elapsed(), TURN_LIMIT + Duration::from_millis(30));
}

/// A young one among old ones that have all the time, after an outage: these stay in order among themselves.
#[tokio::test(start_paused = true)]
async fn who_was_passed_keeps_waiting_for_those_before_it() {
    let lanes = Lanes::default();
    let [first, mut second, mut young] = [(); 3].map(|()| lanes.enter(ADDR, Class::Open));
    let began = Instant::now();
    let settle = async {
        secs(20).await;
        drop(first);
    };
    let old = async {
        second.turn(OLD).await;
        began.elapsed().as_secs()
    };
    let passes = async {
        young.turn(Duration::ZERO).await;
        drop(young);
    };
    assert_eq!(join(join(settle, passes), old).await.1, 20);
}

#[tokio::test(start_paused = true)]
async fn one_decides_for_a_session_at_a_time_and_of_those_that_wait_the_first_that_came_in_is_next() {
    let (lanes, order) = (Lanes::default(), Arc::new(Mutex::new(Vec::new())));
    let mut first = lanes.enter(ADDR, Class::Open);
    let mut others = [(); 3].map(|()| lanes.enter(ADDR, Class::Open)).into_iter().enumerate().collect::<Vec<_>>();
    let mut swept = lanes.beside(ADDR);
    assert!(
        !first.decide(&session(1)).await && !swept.decide(&session(2)).await,
        "sessions do not wait for each other"
    );
    let mut tasks = JoinSet::new();
    // As after an outage, when each has waited long enough for the one before it.
    others.reverse();
    for (number, mut place) in others {
        let order = order.clone();
        tasks.spawn(async move {
            assert!(place.decide(&session(1)).await, "it has to read again");
            sleep(Duration::from_millis(10)).await;
            order.lock().push(number);
            place.decided();
            secs(1).await;
        });
        settle_down().await;
    }
    // One who gives up while waiting leaves nothing behind.
    let mut impatient = lanes.enter(ADDR, Class::Open);
    assert!(timeout(Duration::from_millis(1), impatient.decide(&session(1))).await.is_err());
    drop(impatient);
    drop(first);
    let began = Instant::now();
    tasks.join_all().await;
    assert_eq!(*order.lock(), [0, 1, 2]);
    assert!(began.elapsed() < Duration::from_secs(2), "who has decided holds up no decision");
    drop(swept);
    assert!(lanes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_out_is_waited_for_a_moment() {
    let lanes = Lanes::default();
    let out_after = async |millis| {
        let place = lanes.beside(ADDR);
        place.act(&session(1), 7);
        place.decided();
        assert!(
            lanes.is_acting(&session(1), 7) && !lanes.is_acting(&session(1), 8) && !lanes.is_acting(&session(2), 7)
        );
        let began = Instant::now();
        let act = async {
            sleep(Duration::from_millis(millis)).await;
            place.rest();
        };
        let look = async { (lanes.soon_out(&session(1), 7).await, began.elapsed()) };
        join(act, look).await.1
    };
    assert_eq!(out_after(30).await, (true, Duration::from_millis(30)));
    assert_eq!(out_after(5_000).await, (false, OUT_LIMIT));
    assert!(!lanes.soon_out(&session(1), 7).await, "nobody is at it");
    assert!(lanes.is_empty());
}

/// Tasks that end anywhere, and those that nobody waits for any more.
#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_the_frames_in_hand() {
    let lanes = Lanes::default();
    for round in 0..20_u64 {
        let mut frames = JoinSet::new();
        for number in 0..100 {
            let mut place =
                if number % 10 == 9 { lanes.beside(ADDR) } else { lanes.enter(DevAddr(number % 3), Class::Open) };
            let key = SessionKey { dev_addr: place.dev_addr, ..session(u64::from(number) % 4) };
            frames.spawn(async move {
                place.turn(Duration::ZERO).await;
                place.decide(&key).await;
                place.act(&key, 1);
                sleep(Duration::from_millis((u64::from(number) + round) * 13 % 40)).await;
            });
        }
        let held: usize = lanes.0.lock().lanes.values().map(|lane| lane.0.len()).sum();
        assert_eq!(held, 100);
        sleep(Duration::from_millis(round * 60)).await;
        frames.shutdown().await;
        assert!(lanes.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_a_window_left_and_what_has_none_do_not_wait_for_each_other() {
    let lanes = Lanes::default();
    let [late, mut next_late] = [(); 2].map(|()| lanes.enter(ADDR, Class::Late));
    let [mut open, mut next_open] = [(); 2].map(|()| lanes.enter(ADDR, Class::Open));
    let began = Instant::now();
    open.turn(Duration::ZERO).await;
    drop(open);
    next_open.turn(OLD).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let settle = async {
        secs(3).await;
        drop(late);
    };
    join(settle, next_late.turn(OLD)).await;
    assert_eq!(began.elapsed().as_secs(), 3, "they keep their own order");
}
