//! A radio for a real device stack: what it sends is heard by gateways, and what gateways transmit it hears only in a
//! window that the stack opened, at that window's time, frequency and data rate.
//!
//! All times are the device's: from the end of the uplink, at which each gateway's counter is noted. A busy machine may
//! wake the stack late; the window that it then opens is still the one that it asked the timer for.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use limpet_bench::{Answer, Downlink, VirtualGateway};
use limpet_shared::{
    Eui64,
    gwmp::{Datr, Rxpk, Txpk},
};
use lorawan_device::async_device::{
    Timings,
    radio::{PhyRxTx, RfConfig, RxConfig, RxQuality, RxStatus, Timer, TxConfig},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// How long before a window the stack begins to open it.
const LEAD: Duration = Duration::from_millis(20);
/// A window opens this precisely (LoRaWAN 1.0.4, 3.3.1), so a downlink has to start this precisely.
pub const TOLERANCE_US: i64 = 20;
/// How much longer the radio waits before it says that a window stayed empty. A downlink reaches its gateway 42.5 ms
/// before its time at the latest; this is for a machine that has other things to do.
const PATIENCE: Duration = Duration::from_millis(100);
/// A PUSH_ACK may take this long until it counts as missing.
const PUSH_ACK_WAIT: Duration = Duration::from_secs(10);

/// One gateway in reach of the device.
#[derive(Debug)]
pub struct Antenna {
    gateway: Arc<VirtualGateway>,
    rssi: i32,
    snr: f32,
    /// How long after the end of the packet its report leaves the gateway.
    delay: Duration,
    arriving: mpsc::UnboundedReceiver<Downlink>,
}

impl Antenna {
    pub fn new(gateway: Arc<VirtualGateway>, rssi: i32, snr: f32, delay: Duration) -> Self {
        let arriving = gateway.downlinks();
        Self { gateway, rssi, snr, delay, arriving }
    }
}

/// A receive window that the stack opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// 1 or 2.
    pub number: u8,
    /// After the end of the uplink.
    pub delay: Duration,
    /// Hz.
    pub frequency: u32,
    pub datr: Datr,
}

/// Why a device does not hear a downlink in a window.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    NoTime,
    Time { off_us: i64 },
    Frequency { wanted: u32, got: u32 },
    DataRate { wanted: Datr, got: Datr },
    CodeRate(Option<String>),
    NotInverted,
    Crc,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTime => write!(f, "it has no tmst"),
            Self::Time { off_us } => write!(f, "it starts {off_us} us after the window opens"),
            Self::Frequency { wanted, got } => write!(f, "it is on {got} Hz, the device listens on {wanted} Hz"),
            Self::DataRate { wanted, got } => write!(f, "it has {got:?}, the device listens to {wanted:?}"),
            Self::CodeRate(got) => write!(f, "its code rate is {got:?}"),
            Self::NotInverted => write!(f, "its polarisation is that of uplinks"),
            Self::Crc => write!(f, "it has a CRC"),
        }
    }
}

impl Window {
    /// What keeps the device from hearing `txpk` here. `end`: the gateway's counter at the end of the uplink.
    pub fn mismatch(&self, txpk: &Txpk, end: u32) -> Option<Mismatch> {
        let Some(tmst) = txpk.tmst.filter(|_| !txpk.imme) else { return Some(Mismatch::NoTime) };
        let opens = end.wrapping_add(self.delay.as_micros() as u32);
        let off_us = i64::from(tmst.wrapping_sub(opens).cast_signed());
        match () {
            () if off_us.abs() > TOLERANCE_US => Some(Mismatch::Time { off_us }),
            () if txpk.freq != self.frequency => Some(Mismatch::Frequency { wanted: self.frequency, got: txpk.freq }),
            () if txpk.datr != self.datr => Some(Mismatch::DataRate { wanted: self.datr, got: txpk.datr }),
            () if txpk.codr.as_deref() != Some("4/5") => Some(Mismatch::CodeRate(txpk.codr.clone())),
            () if !txpk.ipol => Some(Mismatch::NotInverted),
            () if txpk.ncrc != Some(true) => Some(Mismatch::Crc),
            () => None,
        }
    }
}

/// A downlink that the device heard.
#[derive(Clone, Debug)]
pub struct Heard {
    pub window: Window,
    pub downlink: Downlink,
    /// The gateway's counter from the end of the uplink to the start of the downlink, us.
    pub after_us: u32,
}

/// An uplink, and what came of it.
#[derive(Debug)]
pub struct Exchange {
    /// Hz.
    pub frequency: u32,
    pub datr: Datr,
    /// PHYPayload.
    pub phy: Vec<u8>,
    end: Instant,
    /// Every gateway's counter at the end of the uplink.
    ends: Vec<(Eui64, u32)>,
    /// What the stack opened.
    pub windows: Vec<Window>,
    pub heard: Option<Heard>,
    /// Downlinks that a gateway refused, as they came.
    pub refused: Vec<Downlink>,
    /// Downlinks that a gateway took and that the device has not heard.
    waiting: Vec<Downlink>,
}

impl Exchange {
    fn end_at(&self, gateway: Eui64) -> u32 {
        self.ends.iter().find(|(eui, _)| *eui == gateway).map(|(_, end)| *end).expect("every gateway is noted")
    }

    /// What the device hears in this window.
    fn listen(&mut self, window: Window) -> Option<&Heard> {
        let fits = |d: &Downlink| window.mismatch(&d.txpk, self.end_at(d.gateway)).is_none();
        let at = self.waiting.iter().position(fits)?;
        let downlink = self.waiting.remove(at);
        let after_us = downlink.txpk.tmst?.wrapping_sub(self.end_at(downlink.gateway));
        Some(self.heard.insert(Heard { window, downlink, after_us }))
    }

    /// Downlinks on air that the device has not heard, each with the reasons.
    pub fn unheard(&self) -> Vec<String> {
        let reason = |d: &Downlink, window: &Window| match window.mismatch(&d.txpk, self.end_at(d.gateway)) {
            Some(mismatch) => format!("RX{}: {mismatch}", window.number),
            None => format!("RX{}: the device received another there", window.number),
        };
        let explain = |d: &Downlink| {
            let reasons: Vec<_> = self.windows.iter().map(|window| reason(d, window)).collect();
            format!("gateway {}, {:?}: {}", d.gateway, d.txpk, reasons.join("; "))
        };
        self.waiting.iter().map(explain).collect()
    }
}

/// What radio and timer of one device share: the end of the uplink, and what the stack last waited for after it.
#[derive(Clone, Debug)]
pub struct DeviceClock(Arc<Mutex<(Instant, Duration)>>);

impl DeviceClock {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), Duration::ZERO))))
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stack's timer.
#[derive(Debug)]
pub struct StackTimer(pub DeviceClock);

impl Timer for StackTimer {
    /// The stack calls this when the packet is out: the radio has noted that time.
    fn reset(&mut self) {}

    async fn at(&mut self, millis: u64) {
        let at = {
            let mut clock = self.0.lock();
            clock.1 = Duration::from_millis(millis);
            clock.0 + clock.1
        };
        tokio::time::sleep_until(at).await;
    }

    async fn delay_ms(&mut self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// What the stack must never ask for.
#[derive(Debug)]
pub struct RadioError(#[expect(dead_code, reason = "shown when it is unwrapped")] &'static str);

/// The radio of one device.
#[derive(Debug)]
pub struct FakeRadio {
    clock: DeviceClock,
    antennas: Vec<Antenna>,
    exchanges: Vec<Exchange>,
    reports: JoinSet<bool>,
}

impl FakeRadio {
    pub fn new(clock: DeviceClock, antennas: Vec<Antenna>) -> Self {
        Self { clock, antennas, exchanges: Vec::new(), reports: JoinSet::new() }
    }

    /// All uplinks so far.
    pub fn exchanges(&mut self) -> &[Exchange] {
        self.collect();
        &self.exchanges
    }

    /// Waits for the gateways' PUSH_ACKs: how many came, how many did not.
    pub async fn push_acks(&mut self) -> (usize, usize) {
        let (mut came, mut missing) = (0, 0);
        while let Some(acked) = self.reports.join_next().await {
            *(if acked.unwrap() { &mut came } else { &mut missing }) += 1;
        }
        (came, missing)
    }

    /// Hands what has come to the gateways to the exchange it came after.
    fn collect(&mut self) {
        for antenna in &mut self.antennas {
            while let Ok(downlink) = antenna.arriving.try_recv() {
                let exchange = self.exchanges.last_mut().expect("a downlink came before any uplink");
                match downlink.answer {
                    Answer::Queued => exchange.waiting.push(downlink),
                    Answer::Refused(_) => exchange.refused.push(downlink),
                }
            }
        }
    }

    /// Every gateway hears the packet, and reports it in its own time.
    fn transmit(&mut self, end: Instant, frequency: u32, datr: Datr, phy: &[u8]) {
        for antenna in &self.antennas {
            let rxpk = Rxpk {
                tmst: Some(antenna.gateway.tmst(end)),
                chan: Some(0),
                rfch: Some(0),
                codr: Some("4/5".into()),
                rssi: Some(antenna.rssi),
                lsnr: Some(antenna.snr),
                ..Rxpk::new(frequency, datr, phy.to_vec())
            };
            let (gateway, at) = (antenna.gateway.clone(), end + antenna.delay);
            self.reports.spawn(async move {
                tokio::time::sleep_until(at).await;
                gateway.send_uplink(&[rxpk]).await.unwrap().acked(PUSH_ACK_WAIT).await.is_some()
            });
        }
    }
}

/// The modulation in the words of GWMP.
fn datr(rf: &RfConfig) -> Datr {
    Datr::Lora { spreading_factor: rf.bb.sf.factor() as u8, bandwidth_khz: (rf.bb.bw.hz() / 1000) as u16 }
}

impl PhyRxTx for FakeRadio {
    type PhyError = RadioError;
    const MAX_RADIO_POWER: u8 = 26;

    async fn tx(&mut self, config: TxConfig, buf: &[u8]) -> Result<u32, RadioError> {
        self.collect();
        // Time on air is over before anything that matters here: the packet ends now.
        let end = Instant::now();
        *self.clock.lock() = (end, Duration::ZERO);
        let (frequency, datr) = (config.rf.frequency, datr(&config.rf));
        self.exchanges.push(Exchange {
            frequency,
            datr,
            phy: buf.to_vec(),
            end,
            ends: self.antennas.iter().map(|a| (a.gateway.eui(), a.gateway.tmst(end))).collect(),
            windows: Vec::new(),
            heard: None,
            refused: Vec::new(),
            waiting: Vec::new(),
        });
        self.transmit(end, frequency, datr, buf);
        Ok(0)
    }

    async fn setup_rx(&mut self, config: RxConfig) -> Result<(), RadioError> {
        let delay = self.clock.lock().1 + LEAD;
        // A slip in the stack's table of AU915, and in no other.
        let frequency = if config.rf.frequency == 922_300_000 { 923_300_000 } else { config.rf.frequency };
        let exchange = self.exchanges.last_mut().ok_or(RadioError("a window without an uplink"))?;
        let number = exchange.windows.len() as u8 + 1;
        exchange.windows.push(Window { number, delay, frequency, datr: datr(&config.rf) });
        Ok(())
    }

    async fn rx_continuous(&mut self, _: &mut [u8]) -> Result<(usize, RxQuality), RadioError> {
        Err(RadioError("a class A device listened without an end"))
    }

    async fn rx_single(&mut self, buf: &mut [u8]) -> Result<RxStatus, RadioError> {
        let exchange = self.exchanges.last().ok_or(RadioError("a window without an uplink"))?;
        let window = *exchange.windows.last().ok_or(RadioError("received before a window was set up"))?;
        tokio::time::sleep_until(exchange.end + window.delay + PATIENCE).await;
        self.collect();
        let exchange = self.exchanges.last_mut().ok_or(RadioError("a window without an uplink"))?;
        let Some(heard) = exchange.listen(window) else { return Ok(RxStatus::RxTimeout) };
        let phy = &heard.downlink.txpk.data;
        buf.get_mut(..phy.len()).ok_or(RadioError("the packet is too long"))?.copy_from_slice(phy);
        Ok(RxStatus::Rx(phy.len(), RxQuality::new(-80, 7)))
    }
}

impl Timings for FakeRadio {
    fn get_rx_window_lead_time_ms(&self) -> u32 {
        LEAD.as_millis() as u32
    }
}
