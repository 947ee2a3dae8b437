//! What lies between devices and gateways.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use limpet_shared::{
    Eui64,
    gwmp::{Datr, Rxpk},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{OnAir, Push, RxWindow, Transmission, VirtualGateway, lock};

/// A window opens this precisely (LoRaWAN 1.0.4, 3.3.1: 20 us).
const TOLERANCE: u32 = 20;
/// How long after RX2 opens a downlink may still be on its way through this process.
const SLACK: Duration = Duration::from_millis(400);

/// Carries uplinks from devices to gateways, and downlinks back to the devices that listen for them.
#[derive(Debug)]
pub struct Air {
    gateways: Vec<Arc<VirtualGateway>>,
    flights: Arc<Flights>,
    _tasks: JoinSet<()>,
}

/// How one gateway hears a transmission.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// Its number in [`Air::gateways`].
    pub gateway: usize,
    /// dBm
    pub rssi: i32,
    /// dB
    pub snr: f32,
    /// How long after the end of the packet its report leaves the gateway.
    pub delay: Duration,
}

impl Coverage {
    /// Heard well, reported at once.
    pub fn good(gateway: usize) -> Self {
        Self { gateway, rssi: -60, snr: 9.5, delay: Duration::ZERO }
    }
}

/// A transmission that was sent, and the device's ear until its last window closes.
#[derive(Debug)]
pub struct Flight {
    id: u64,
    flights: Arc<Flights>,
    deadline: Instant,
    heard: mpsc::UnboundedReceiver<Caught>,
    /// The PUSH_DATA of each gateway that heard it, in the order of the coverage given.
    pub pushes: Vec<Push>,
}

/// A downlink that came at the time, frequency and data rate of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// 1 or 2.
    pub window: u8,
    pub gateway: Eui64,
    /// PHYPayload.
    pub phy: Vec<u8>,
}

/// A downlink that no device could hear.
#[derive(Clone, Debug)]
pub struct Stray {
    pub packet: OnAir,
    /// It came in some device's window, but on another frequency, data rate or polarisation.
    pub in_time: bool,
}

#[derive(Debug, Default)]
struct Flights {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
    strays: Mutex<Vec<Stray>>,
    stray_count: AtomicU64,
}

/// Most strays that are kept to look at; all are counted.
const MAX_STRAYS: usize = 100;

#[derive(Debug)]
struct Open {
    /// Each hearing gateway, with its counter at the end of the uplink.
    ends: Vec<(Eui64, u32)>,
    windows: [RxWindow; 2],
    tell: mpsc::UnboundedSender<Caught>,
}

impl Air {
    /// Joins gateways and devices.
    pub fn new(gateways: Vec<Arc<VirtualGateway>>) -> Self {
        let flights = Arc::new(Flights::default());
        let mut tasks = JoinSet::new();
        for gateway in &gateways {
            let mut on_air = gateway.on_air();
            let flights = flights.clone();
            tasks.spawn(async move {
                while let Some(packet) = on_air.recv().await {
                    flights.deliver(packet);
                }
            });
        }
        Self { gateways, flights, _tasks: tasks }
    }

    pub fn gateways(&self) -> &[Arc<VirtualGateway>] {
        &self.gateways
    }

    /// Downlinks that were transmitted and that no device could hear: how many, and the first hundred of them.
    pub fn strays(&self) -> (u64, Vec<Stray>) {
        (self.flights.stray_count.load(Ordering::Relaxed), lock(&self.flights.strays).clone())
    }

    /// Sends a packet whose end is now to the gateways that hear it. Each reports it after its own delay.
    pub async fn transmit(&self, packet: &Transmission, coverage: &[Coverage]) -> io::Result<Flight> {
        let end = Instant::now();
        let heard: Vec<_> = coverage.iter().filter_map(|c| Some((c, self.gateways.get(c.gateway)?.clone()))).collect();
        let ends = heard.iter().map(|(_, gateway)| (gateway.eui(), gateway.tmst(end))).collect();
        let (tell, ear) = mpsc::unbounded_channel();
        let id = self.flights.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.flights.open).insert(id, Open { ends, windows: packet.windows, tell });
        let [_, rx2] = packet.windows;
        let deadline = end + rx2.delay + SLACK;
        let mut flight = Flight { id, flights: self.flights.clone(), deadline, heard: ear, pushes: Vec::new() };
        let mut by_delay: Vec<_> = heard.into_iter().enumerate().collect();
        by_delay.sort_by_key(|(_, (c, _))| c.delay);
        let mut pushes = Vec::new();
        for (at, (c, gateway)) in by_delay {
            tokio::time::sleep_until(end + c.delay).await;
            pushes.push((at, gateway.send_uplink(&[report(packet, c, gateway.tmst(end))]).await?));
        }
        pushes.sort_by_key(|(at, _)| *at);
        flight.pushes = pushes.into_iter().map(|(_, push)| push).collect();
        Ok(flight)
    }
}

fn report(packet: &Transmission, coverage: &Coverage, tmst: u32) -> Rxpk {
    Rxpk {
        tmst: Some(tmst),
        chan: Some(0),
        rfch: Some(0),
        codr: packet.datr.code_rate().map(Into::into),
        rssi: Some(coverage.rssi),
        lsnr: Some(coverage.snr),
        ..Rxpk::new(packet.frequency, packet.datr, packet.phy.clone())
    }
}

impl Flight {
    /// The next downlink in one of the windows; `None` once both are over. What it says, and whether it is for this
    /// device, the device knows ([`crate::VirtualDevice::receive`]).
    pub async fn next(&mut self) -> Option<Caught> {
        timeout_at(self.deadline, self.heard.recv()).await.ok()?
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.flights.open).remove(&self.id);
    }
}

impl Flights {
    fn deliver(&self, packet: OnAir) {
        let (mut in_time, mut heard) = (false, false);
        for open in lock(&self.open).values() {
            let Some(window) = open.window_of(&packet) else { continue };
            in_time = true;
            let RxWindow { frequency, datr, .. } = open.windows[usize::from(window) - 1];
            let txpk = &packet.txpk;
            let inverted = txpk.ipol || !matches!(datr, Datr::Lora { .. });
            if (txpk.freq, txpk.datr) == (frequency, datr) && inverted {
                heard = true;
                let _ = open.tell.send(Caught { window, gateway: packet.gateway, phy: txpk.data.clone() });
            }
        }
        if !heard {
            self.stray_count.fetch_add(1, Ordering::Relaxed);
            let mut strays = lock(&self.strays);
            if strays.len() < MAX_STRAYS {
                strays.push(Stray { packet, in_time });
            }
        }
    }
}

impl Open {
    /// Which window the packet starts in, judged by the transmitting gateway's own counter.
    fn window_of(&self, packet: &OnAir) -> Option<u8> {
        let (_, end) = self.ends.iter().find(|(eui, _)| *eui == packet.gateway)?;
        let fits = |window: &RxWindow| {
            let opens = end.wrapping_add(window.delay.as_micros() as u32);
            opens.wrapping_sub(packet.tmst).min(packet.tmst.wrapping_sub(opens)) <= TOLERANCE
        };
        let [rx1, rx2] = &self.windows;
        if fits(rx1) {
            Some(1)
        } else if fits(rx2) {
            Some(2)
        } else {
            None
        }
    }
}
