//! Accepting an uplink: the session's next row, with the uplink's events in the slot, and its answer beside it.

use alloc::{boxed::Box, format, string::String, string::ToString, vec::Vec};
use core::time::Duration;

use limpet_shared::{
    UnixMicros,
    lorawan::{DataFrame, Keys, mac},
    region::Region,
};

use super::{
    Acceptance, Reply, answer, behind_pending, commands,
    requests::{self, Wanted},
};
use crate::{
    adr::{self, Limits, Sending},
    downlink::{self, Timing, Way},
    ident,
    model::*,
    session,
};

/// A device that so often says that it goes on with another data rate, and does not, has none.
const MOST_IGNORED: u8 = 3;

/// An uplink and all that deciding about it needs.
#[derive(Clone, Debug)]
pub struct Uplink<'a> {
    pub row: &'a SessionRow,
    pub context: &'a DeviceContext,
    pub region: &'a Region,
    /// Those of [`Self::region`].
    pub settings: &'a RegionSettings,
    /// The region configuration that the session lives in, of the same band: its channels are the device's, wherever it was heard.
    pub home: &'a Region,
    /// Those of [`Self::home`].
    pub home_settings: &'a RegionSettings,
    pub frame: &'a DataFrame<'a>,
    /// The 32-bit FCntUp that verified.
    pub fcnt: u32,
    /// All receptions of this transmission; at least one.
    pub receptions: &'a [Reception],
    /// The way back of each.
    pub ways: &'a [Way],
    /// The device's queue after `session.queue_done`, oldest first: two items are enough.
    pub queue: &'a [QueueItem],
    /// Name of the deciding worker.
    pub worker: &'a str,
    /// On the clock of the balancer that received it first.
    pub now: UnixMicros,
    /// The answer is a decision of its own, taken so long after the events are told; unless an item waits already, or there is
    /// not that much time for what is owed.
    pub reply_after: Option<Duration>,
    /// Telling an event takes so long at most.
    pub telling: Duration,
}

/// Step 5: the row that the compare-and-set writes. It holds all that is needed to finish the uplink: nothing that was
/// planned here is acted on unless the store took the row. In a session that is over only the event counts.
pub fn accept(uplink: &Uplink<'_>, how: Acceptance) -> Session {
    let old = &uplink.row.session;
    let mut next = old.clone();
    next.rev += 1;
    next.slot = Slot {
        number: old.slot.number + 1,
        kind: SlotKind::Up(uplink.fcnt),
        received_at: uplink.received_at(),
        worker: uplink.worker.into(),
        accepted_at: uplink.now,
        behind_pending: behind_pending(uplink.row),
        mic: Some(uplink.frame.mic),
        ..Slot::empty()
    };
    match how {
        Acceptance::Overtaken => {
            next.seen = next.seen.accept(uplink.fcnt, next.slot.received_at, uplink.frame.mic);
            next.slot.events.push(uplink.up_event(next.resets));
        }
        Acceptance::AckAgain => {
            next.slot.kind = SlotKind::AckAgain(uplink.fcnt);
            // It promises nothing about the queue: its item, if it had one, is offered with the next new uplink.
            let open = uplink.open(&next, ToSay::default());
            next.answer = Answer::Closed;
            uplink.answer_at_once(&mut next, &open, &[]);
        }
        Acceptance::New | Acceptance::Restarted => {
            if how == Acceptance::Restarted {
                next.resets += 1;
                next.seen = next.seen.restarted_at(uplink.fcnt);
                uplink.forget_mac(&mut next);
            }
            next.seen = next.seen.accept(uplink.fcnt, next.slot.received_at, uplink.frame.mic);
            next.slot.events.push(uplink.up_event(next.resets));
            if old.over.is_some() {
                return next;
            }
            uplink.settle_queue(&mut next);
            let said = uplink.take_commands(&mut next);
            let open = uplink.open(&next, said);
            uplink.answer(&mut next, open);
        }
    }
    next
}

/// What the answer to an uplink is to say, besides an ACK and an item.
#[derive(Default)]
struct ToSay {
    /// It is reason enough for a downlink.
    is_due: bool,
    answers: Vec<u8>,
    requests: Vec<u8>,
}

impl Uplink<'_> {
    /// The earliest reception of the transmission.
    pub fn received_at(&self) -> UnixMicros {
        self.receptions.iter().map(|r| r.received_at).min().unwrap_or(self.now)
    }

    fn keys(&self) -> Keys {
        self.row.session.device_keys().into()
    }

    /// What its answer has to say, and by which gateways it can go.
    fn open(&self, next: &Session, said: ToSay) -> OpenAnswer {
        OpenAnswer {
            slot: next.slot.number,
            opened_at: self.now,
            ack: self.frame.confirmed,
            adr: self.frame.fctrl.adr,
            asked: self.frame.fctrl.adr_ack_req || said.is_due,
            fopts: said.answers,
            requests: said.requests,
            gateways: downlink::plan(self.receptions, self.ways, Timing::of(&next.mac), (self.region, self.settings)),
            region: self.region.name().into(),
        }
    }

    fn now_at(&self) -> impl Fn(u64) -> UnixMicros {
        downlink::clock(self.receptions, self.ways, self.now)
    }

    /// The answer of a new uplink: left open, decided, or nothing.
    fn answer(&self, next: &mut Session, open: OpenAnswer) {
        next.answer = Answer::Closed;
        // Where no window is left nothing is known of what could go in one.
        let Some(first) = self.first_in_time(&open) else { return };
        // Before it is asked whether an item waits.
        self.drop_unsendable(next, &open);
        let none_waits = self.queue.iter().all(|item| item.seq <= next.queue_done);
        if none_waits && self.has_time(next, &open, &first) {
            next.answer = Answer::Open(Box::new(open));
        } else {
            self.answer_at_once(next, &open, self.queue);
        }
    }

    /// The best gateway that can still answer, and what it can.
    fn first_in_time(&self, open: &OpenAnswer) -> Option<PlannedGateway> {
        downlink::in_time(&open.gateways, self.now_at()).into_iter().next()
    }

    /// Whether the answer can wait until the events are told and an application has had its time. One that owes the device something
    /// must not lose the next window by it.
    fn has_time(&self, next: &Session, open: &OpenAnswer, first: &PlannedGateway) -> bool {
        let Some(after) = self.reply_after else { return false };
        let needs = downlink::LEAD + after + self.telling * u32::try_from(next.slot.events.len()).unwrap_or(u32::MAX);
        let now = self.now_at()(first.balancer);
        !open.owes() || first.windows.first().is_some_and(|window| window.at >= now + needs)
    }

    fn answer_at_once(&self, next: &mut Session, open: &OpenAnswer, queue: &[QueueItem]) {
        let (marks, now) = (self.row.marks, self.now);
        let (region, settings) = (self.region, self.settings);
        let reply = Reply { open, region, settings, queue, marks, now, now_at: &self.now_at() };
        answer::decide(&reply, next);
    }

    /// An item that no window of this data rate can carry even alone, were there time for it, is dropped with a word to the
    /// application: waiting for a better data rate would hold up all behind it. So is one that is [`answer::hopeless`].
    fn drop_unsendable(&self, next: &mut Session, open: &OpenAnswer) {
        while let Some(item) = self.queue.iter().find(|i| i.seq > next.queue_done) {
            if let Some(description) = next.item.filter(|sent| sent.seq == item.seq).and_then(answer::hopeless) {
                self.give_up(next, item, description);
            } else if downlink::fitting(&open.gateways, answer::length(item), (self.region, self.settings)).is_empty() {
                let length = item.data.len();
                let description = format!("{length} bytes do not fit the device's receive windows at this data rate");
                self.drop_item(next, item, "DOWNLINK_PAYLOAD_SIZE", description);
            } else {
                break;
            }
        }
    }

    fn event(&self, what: &str, resets: u32, number: u32, kind: EventKind) -> Event {
        Event {
            id: ident::event_id(what, &self.row.session.key, resets, number),
            at: self.received_at(),
            device: self.context.info(),
            kind,
        }
    }

    fn up_event(&self, resets: u32) -> Event {
        let mut best: Vec<&Reception> = self.receptions.iter().collect();
        best.sort_by(|a, b| downlink::better(a, b));
        let mut receptions: Vec<EventReception> = Vec::new();
        for r in &best {
            // A datagram that came twice says nothing new; another antenna or board does.
            let place = |gateway: limpet_shared::Eui64, rx: &RxInfo| (gateway, rx.board, rx.antenna);
            if receptions.iter().all(|seen| place(seen.gateway, &seen.rx) != place(r.gateway, &r.rx)) {
                receptions.push(EventReception { gateway: r.gateway, received_at: r.received_at, rx: r.rx.clone() });
            }
        }
        let application_port = self.frame.fport.is_some_and(|p| p > 0);
        let first = best.first();
        let up = UpEvent {
            dev_addr: self.frame.dev_addr,
            adr: self.frame.fctrl.adr,
            data_rate: first.map_or(0, |r| r.data_rate),
            fcnt: self.fcnt,
            fport: self.frame.fport,
            confirmed: self.frame.confirmed,
            data: if application_port { self.frame.decrypt(&self.keys(), self.fcnt) } else { Vec::new() },
            region: self.region.name().into(),
            frequency: first.map_or(0, |r| r.frequency),
            receptions,
        };
        self.event("up", resets, self.fcnt, EventKind::Up(up))
    }

    /// A device that has lost its counter has lost what it was told by MAC commands as well; a join tells more than that, and what it
    /// told may be kept.
    fn forget_mac(&self, next: &mut Session) {
        next.mac.requests.clear();
        next.mac.adr = AdrState::default();
        if !next.joined {
            let (battery, margin) = (next.mac.battery, next.mac.margin);
            next.mac = MacState { battery, margin, ..session::built_in_mac(self.home, &self.context.profile) };
        }
    }

    /// MAC commands travel in FOpts, or alone in the FRMPayload of FPort 0 (LoRaWAN 1.0.4, 4.3.2).
    fn take_commands(&self, next: &mut Session) -> ToSay {
        let commands = match self.frame.fport {
            Some(0) => mac::parse_uplink(&self.frame.decrypt(&self.keys(), self.fcnt)).commands,
            _ => mac::parse_uplink(self.frame.fopts).commands,
        };
        let answers = commands::encode(&commands::answers(&commands, self.receptions, self.received_at(), self.region));
        let settled = requests::settle(
            &commands,
            self.frame.fctrl.adr,
            &mut next.mac,
            (self.home, self.context.profile.mac_version),
        );
        let sending = self.adapt(&mut next.mac, settled.was_told_to_send());
        let wanted = Wanted {
            home: self.home,
            settings: self.home_settings,
            profile: &self.context.profile,
            joined: next.joined,
            sending,
            at: self.received_at(),
        };
        let asked = requests::ask(&wanted, &mut next.mac, &settled, self.fcnt, requests::room_beside(&answers));
        let events = &mut next.slot.events;
        let resets = next.resets;
        events.extend(settled.status.map(|status| self.event("status", resets, self.fcnt, EventKind::Status(status))));
        for (request, what) in &settled.refused {
            events.push(self.given_up(request, resets, &format!("refuses (its {what})")));
        }
        for request in &asked.unanswered {
            events.push(self.given_up(request, resets, "does not answer"));
        }
        ToSay { is_due: settled.repeats || asked.due, answers, requests: asked.commands }
    }

    /// What the device is to send with, if the network chooses that and it is another thing than now. `told`: it has just said that it
    /// goes on as it was told.
    fn adapt(&self, mac: &mut MacState, told: bool) -> Option<Sending> {
        let data_rate = self.receptions.first().map_or(mac.data_rate, |r| r.data_rate);
        if data_rate != mac.data_rate {
            // By itself, and perhaps with its power: that of the beginning is assumed.
            mac.adr.ignored = mac.adr.ignored.saturating_add(told.into());
            if mac.adr.ignored >= MOST_IGNORED {
                mac.adr.max_data_rate = Some(data_rate);
            }
            (mac.data_rate, mac.tx_power) = (data_rate, 0);
            mac.adr.heard.clear();
        }
        let chooses = self.frame.fctrl.adr && !self.home_settings.adr_disabled.unwrap_or_default();
        let needed = self.region.modulation(data_rate).as_ref().and_then(adr::required_snr).filter(|_| chooses);
        let Some(needed) = needed else {
            mac.adr.heard = Vec::new();
            return None;
        };
        let best = self.receptions.iter().map(|r| r.rx.snr).fold(f32::NEG_INFINITY, f32::max);
        adr::remember(&mut mac.adr, self.fcnt.saturating_sub(self.row.session.seen.next), best);
        let limits = Limits::of(self.home, self.home_settings, &mac.adr);
        let now = adr::now(mac);
        let sending = adr::decide(now, &mac.adr.heard, needed, &limits);
        // What it was asked and has not answered, it may have done: until it says what it does, nothing is sure.
        (sending != now || requests::awaits_link_adr(mac)).then_some(sending)
    }

    /// Tells the owner that the device will not have what is set for it.
    fn given_up(&self, request: &Request, resets: u32, why: &str) -> Event {
        let (name, asked) = (request.subject().map_or("", Subject::name), requests::describe(request));
        let description = format!("the device {why} {asked}: it is not asked again unless something else is set");
        let context = Tags::from([("mac_command".to_string(), name.to_string())]);
        let kind = EventKind::Log(LogEvent { error: false, code: "UNKNOWN".into(), description, context });
        self.event(&format!("log {asked}"), resets, self.fcnt, kind)
    }

    /// What became of the queue item sent last: a TX_ACK or the device's own ACK says that it was on air.
    fn settle_queue(&self, next: &mut Session) {
        let acknowledged = self.frame.fctrl.ack;
        let sent = |fcnt_down: u32| self.row.marks.sent > u64::from(fcnt_down);
        let awaiting = next.awaiting_ack.take();
        let on_air = next.item.is_some_and(|i| sent(i.first_fcnt_down)) || (acknowledged && awaiting.is_some());
        if let Some(item) = next.item.filter(|_| on_air) {
            next.queue_done = next.queue_done.max(item.seq);
            next.item = None;
        }
        // An item that is done, by whichever of its FCntDowns, is waited for no more.
        if let Some(ack) = awaiting.filter(|a| on_air || sent(a.fcnt_down)) {
            let AwaitingAck { queue_item, fcnt_down } = ack;
            let kind = EventKind::Ack(AckEvent { queue_item, acknowledged, fcnt_down });
            next.slot.events.push(self.event("ack", next.resets, fcnt_down, kind));
        }
        self.skip_unsendable(next);
    }

    /// Items that expired are passed over, with a word to the application.
    fn skip_unsendable(&self, next: &mut Session) {
        while let Some(item) = self.queue.iter().find(|i| i.seq > next.queue_done) {
            if item.expires_at.is_none_or(|at| at > self.now) {
                break;
            }
            self.drop_item(next, item, "EXPIRED", "the queue item expired before it could be sent".to_string());
        }
    }

    /// Drops an item that was sent and may never have been on air; of a confirmed one nobody will acknowledge any more.
    fn give_up(&self, next: &mut Session, item: &QueueItem, description: String) {
        let fcnt_down = next.item.map_or(0, |sent| sent.first_fcnt_down);
        self.drop_item(next, item, "DOWNLINK_GATEWAY", description);
        if item.confirmed {
            let nack = AckEvent { queue_item: item.id.clone(), acknowledged: false, fcnt_down };
            next.slot.events.push(self.event("ack", next.resets, fcnt_down, EventKind::Ack(nack)));
        }
    }

    fn drop_item(&self, next: &mut Session, item: &QueueItem, code: &str, description: String) {
        next.queue_done = next.queue_done.max(item.seq);
        next.item = None;
        let context = Tags::from([("queue_item_id".to_string(), item.id.clone())]);
        let kind = EventKind::Log(LogEvent { error: true, code: code.into(), description, context });
        next.slot.events.push(self.event(&format!("log {code}"), next.resets, item.seq as u32, kind));
    }
}

impl DeviceContext {
    /// The device as events name it; tags of application, profile and device together, the device's winning.
    pub fn info(&self) -> DeviceInfo {
        let mut tags = self.application.tags.clone();
        tags.extend(self.profile.tags.clone());
        tags.extend(self.device.tags.clone());
        DeviceInfo {
            tenant_id: self.application.tenant_id,
            tenant_name: self.tenant_name.clone(),
            application_id: self.application.id,
            application_name: self.application.name.clone(),
            device_profile_id: self.profile.id,
            device_profile_name: self.profile.name.clone(),
            device_name: self.device.name.clone(),
            dev_eui: self.device.dev_eui,
            tags,
        }
    }
}
