//! From a datagram to receptions: parse JSON and PHYPayload once; what is worthless ends here, counted.

use limpet_link::host::{self, Rule};
use limpet_shared::{
    Eui64, RadioTime,
    gwmp::{self, Rxpk, RxpkError, Stat, UpKind},
    link::UplinkFrame,
    lorawan::{self, Direction, Frame},
    region::Modulation,
};
use limpet_worker_core::{
    ident,
    line::Class,
    model::{AntennaSignal, GatewaySeen, Location, Reception, RxInfo},
};

use super::{Pipeline, lanes::Place};
use crate::regions::RegionMatch;

/// A packet that is worth asking the store about its gateway.
struct Packet {
    rxpk: Rxpk,
    modulation: Modulation,
    /// Its place in the line of its device; none for a JoinRequest.
    place: Option<Place>,
}

impl Pipeline {
    /// The receptions in a datagram that are worth storing, with their places.
    pub(super) async fn parse(&self, balancer: u64, frame: &UplinkFrame) -> Vec<(Reception, Option<Place>)> {
        let pushed = match gwmp::parse_upstream(&frame.datagram) {
            Ok(up) if up.kind == UpKind::PushData => gwmp::parse_push_data(up.json).map_err(|e| e.reason()),
            Ok(_) => Err("not_push_data"),
            Err(error) => Err(error.reason()),
        };
        let pushed = match pushed {
            Ok(pushed) => pushed,
            Err(reason) => {
                self.dropped(reason, frame.gateway);
                return Vec::new();
            }
        };
        // In line before the store is asked for anything: an answer may take as long as it is away, and answers come in any order.
        let class = Class::of(self.now_at(balancer).since(frame.received_at));
        let packet = |rxpk| self.packet((frame.gateway, class), rxpk);
        let packets: Vec<_> = pushed.rxpk.into_iter().filter_map(packet).collect();
        match pushed.stat {
            Some(Ok(stat)) => self.note_stat(frame, &stat).await,
            Some(Err(error)) => self.dropped(error.reason(), frame.gateway),
            None => {}
        }
        let mut receptions = Vec::new();
        for packet in packets {
            receptions.extend(self.reception(balancer, frame, packet).await);
        }
        receptions.retain(|(reception, _)| {
            let takes = self.repeats.takes(reception);
            if !takes {
                self.dropped("repeated", frame.gateway);
            }
            takes
        });
        receptions
    }

    async fn reception(
        &self,
        balancer: u64,
        frame: &UplinkFrame,
        Packet { mut rxpk, modulation, place }: Packet,
    ) -> Option<(Reception, Option<Place>)> {
        let ask = || self.regions.of(&*self.store, frame.gateway, rxpk.freq, &modulation);
        match self.until_stored("gateway", ask).await.map_err(|e| e.reason()) {
            Ok(matched) => {
                // Once, so that all that follows agrees: copies, RX1 and events.
                if let Some(modulation) = matched.region.modulation(matched.data_rate) {
                    rxpk.freq = matched.region.snap(rxpk.freq, &modulation);
                }
                Some((to_reception((balancer, frame), rxpk, matched), place))
            }
            Err(reason) => {
                self.dropped(reason, frame.gateway);
                None
            }
        }
    }

    fn packet(&self, (gateway, class): (Eui64, Class), rxpk: Result<Rxpk, RxpkError>) -> Option<Packet> {
        self.metrics.rxpk();
        let judged = rxpk.map_err(|e| e.reason()).and_then(|rxpk| self.judge_rxpk(rxpk, class));
        judged.map_err(|reason| self.dropped(reason, gateway)).ok()
    }

    fn judge_rxpk(&self, rxpk: Rxpk, class: Class) -> Result<Packet, &'static str> {
        if rxpk.stat == -1 {
            return Err("crc_error");
        }
        let modulation = rxpk.modulation().ok_or("unknown_modulation")?;
        let place = match lorawan::parse(&rxpk.data).map_err(|e| e.reason())? {
            Frame::Data(data) if data.direction == Direction::Up => Some(self.lanes.enter(data.dev_addr, class)),
            Frame::JoinRequest(_) => None,
            Frame::Data(_) | Frame::JoinAccept(_) => return Err("downlink_heard"),
            Frame::Rejoin => return Err("rejoin_unsupported"),
            Frame::Proprietary => return Err("proprietary"),
        };
        Ok(Packet { rxpk, modulation, place })
    }

    async fn note_stat(&self, frame: &UplinkFrame, stat: &Stat) {
        let location = stat.lati.zip(stat.long).map(|(latitude, longitude)| Location {
            latitude,
            longitude,
            altitude: stat.alti.map_or(0.0, f64::from),
            // ChirpStack's LocationSource GPS.
            source: 1,
            accuracy: 0.0,
        });
        // What is no place must not replace one.
        let location = location.filter(Location::is_place);
        let seen = GatewaySeen { last_seen_at: Some(frame.received_at), address: None, location };
        if let Err(error) = self.store.note_gateway(frame.gateway, seen).await {
            tracing::debug!(gateway = %frame.gateway, %error, "could not note a gateway's stat");
        }
        if let Some(location) = location {
            self.regions.placed(frame.gateway, location);
        }
    }

    pub(super) fn dropped(&self, reason: &'static str, gateway: Eui64) {
        self.metrics.dropped(reason);
        tracing::debug!(%gateway, reason, "dropped");
    }
}

fn to_reception((balancer, frame): (u64, &UplinkFrame), rxpk: Rxpk, matched: RegionMatch) -> Reception {
    let RegionMatch { region, data_rate, location } = matched;
    let signal = rxpk.signal();
    // The antenna is handed back with a downlink only if the gateway named it.
    let antenna = rxpk.ant.or(rxpk.ants.first().copied()).or(rxpk.rsig.first().map(|_| signal.antenna));
    let antennas = antennas(&rxpk);
    let key = if host::keeps(Rule::OneKeyForCopies) {
        ident::dedup_key(&rxpk.data)
    } else {
        ident::dedup_key(&[rxpk.data.as_slice(), &frame.gateway.0.to_be_bytes()].concat())
    };
    let rx = RxInfo {
        radio: rxpk.tmst.map(RadioTime::Counter),
        time: rxpk.time,
        tmms: rxpk.tmms,
        rssi: signal.rssi,
        snr: signal.snr,
        channel: signal.channel,
        rf_chain: rxpk.rfch.unwrap_or_default(),
        board: rxpk.brd,
        antenna,
        no_crc: rxpk.stat == 0,
        fine_time: rxpk.ftime,
        antennas,
        location,
        code_rate: rxpk.codr.unwrap_or_default(),
        metadata: rxpk.meta,
    };
    Reception {
        key,
        gateway: frame.gateway,
        context: ident::reception_context(frame.received_at.0, (rxpk.freq, data_rate), &rx),
        received_at: frame.received_at,
        balancer,
        region: region.name().into(),
        frequency: rxpk.freq,
        data_rate,
        rx,
        phy: rxpk.data,
    }
}

/// Each antenna of a gateway that lists them, best first. What it does not say of an antenna is the packet's.
fn antennas(rxpk: &Rxpk) -> Vec<AntennaSignal> {
    let mut antennas: Vec<AntennaSignal> = rxpk
        .rsig
        .iter()
        .map(|signal| AntennaSignal {
            antenna: signal.ant.or(rxpk.ant).unwrap_or_default(),
            channel: signal.chan.or(rxpk.chan).unwrap_or_default(),
            rssi: signal.rssic.or(signal.rssis).or(rxpk.rssi).unwrap_or_default(),
            snr: signal.lsnr.or(rxpk.lsnr).unwrap_or_default(),
            fine_time: signal.ftime,
        })
        .collect();
    antennas.sort_by(|a, b| b.snr.total_cmp(&a.snr).then(b.rssi.cmp(&a.rssi)));
    antennas
}
