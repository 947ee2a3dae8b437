//! What the device does, and what the regional parameters (RP002-1.0.4) say where its downlinks must be.

use limpet_shared::gwmp::Datr;
use lorawan_device::{async_device::DR, region};

/// Frequency (Hz) and data rate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub frequency: u32,
    pub datr: Datr,
}

/// A region, as the server, the stack and the tables have it.
pub struct Band {
    /// For `--region`.
    pub name: &'static str,
    pub api: chirpstack_api::common::Region,
    pub stack: region::Configuration,
    /// Data rates of the uplinks, in turn, with what they mean.
    pub data_rates: &'static [(DR, Datr)],
    /// Where uplinks may be after the join.
    pub channels: &'static [u32],
    /// Where RX1 is after an uplink.
    pub rx1: fn(Frame) -> Frame,
    pub rx2: Frame,
    /// The window that the JoinAccept is heard in: 2 if the gateways refuse RX1.
    pub join_in: u8,
    /// What is set for the region before the device joins.
    pub settings: &'static [&'static str],
    /// So many uplinks are answered in any case, with a TxParamSetupReq that the stack does not answer.
    pub asked: usize,
    /// Of the stack's dice.
    pub seed: u64,
}

pub const fn lora(spreading_factor: u8, bandwidth_khz: u16) -> Datr {
    Datr::Lora { spreading_factor, bandwidth_khz }
}

pub static EU868_RATES: [(DR, Datr); 6] = [
    (DR::_5, lora(7, 125)),
    (DR::_4, lora(8, 125)),
    (DR::_3, lora(9, 125)),
    (DR::_2, lora(10, 125)),
    (DR::_1, lora(11, 125)),
    (DR::_0, lora(12, 125)),
];

pub static US915_RATES: [(DR, Datr); 4] =
    [(DR::_3, lora(7, 125)), (DR::_2, lora(8, 125)), (DR::_1, lora(9, 125)), (DR::_0, lora(10, 125))];

pub static AU915_RATES: [(DR, Datr); 6] = EU868_RATES;
pub static IN865_RATES: [(DR, Datr); 6] = EU868_RATES;

/// Eight downlink channels, taken in turn by the uplink's channel; DR0 to DR3 are answered with DR10 to DR13.
pub fn us915_rx1(uplink: Frame) -> Frame {
    let channel = (uplink.frequency - 902_300_000) / 200_000;
    let Datr::Lora { spreading_factor, .. } = uplink.datr else { panic!("{:?} is not LoRa", uplink.datr) };
    Frame { frequency: 923_300_000 + 600_000 * (channel % 8), datr: lora(spreading_factor, 500) }
}

/// The same downlink channels; DR0 to DR5 are answered with DR8 to DR13.
pub fn au915_rx1(uplink: Frame) -> Frame {
    let channel = (uplink.frequency - 915_200_000) / 200_000;
    let Datr::Lora { spreading_factor, .. } = uplink.datr else { panic!("{:?} is not LoRa", uplink.datr) };
    Frame { frequency: 923_300_000 + 600_000 * (channel % 8), datr: lora(spreading_factor, 500) }
}

/// What waits in the device's queue when it sends.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub confirmed: bool,
    pub fport: u8,
    pub data: &'static [u8],
}

/// One uplink of the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    pub confirmed: bool,
    /// Put into the queue just before.
    pub enqueue: &'static [Item],
    /// Every gateway refuses the downlink of RX1 with COLLISION_PACKET.
    pub refuse_rx1: bool,
    /// The item that comes down, if any.
    pub comes_down: Option<Item>,
}

const PLAIN: Step = Step { confirmed: false, enqueue: &[], refuse_rx1: false, comes_down: None };
const CONFIRMED: Step = Step { confirmed: true, ..PLAIN };

const fn item(confirmed: bool, fport: u8, data: &'static [u8]) -> Item {
    Item { confirmed, fport, data }
}

/// Enqueued, and comes down at once.
const fn with(step: Step, items: &'static [Item]) -> Step {
    Step { enqueue: items, comes_down: Some(items[0]), ..step }
}

const fn refused(step: Step) -> Step {
    Step { refuse_rx1: true, ..step }
}

static ONE: [Item; 1] = [item(false, 10, b"one")];
static TWO: [Item; 1] = [item(true, 11, b"two, confirmed")];
static THREE: [Item; 1] = [item(false, 223, b"three, in RX2")];
static FOUR: [Item; 1] = [item(true, 1, b"four, with ACK")];
static FIVE: [Item; 1] = [item(true, 12, b"five, in RX2")];
static SIX_SEVEN: [Item; 2] = [item(false, 13, b"six"), item(true, 14, b"seven")];

/// Twenty uplinks: ten confirmed, seven with a queue item, four answered in RX2.
pub static STEPS: [Step; 20] = [
    PLAIN,
    CONFIRMED,
    with(PLAIN, &ONE),
    with(PLAIN, &TWO),
    PLAIN,
    refused(CONFIRMED),
    refused(with(PLAIN, &THREE)),
    CONFIRMED,
    with(CONFIRMED, &FOUR),
    PLAIN,
    refused(with(CONFIRMED, &FIVE)),
    CONFIRMED,
    with(PLAIN, &SIX_SEVEN),
    Step { comes_down: Some(SIX_SEVEN[1]), ..CONFIRMED },
    PLAIN,
    refused(CONFIRMED),
    CONFIRMED,
    PLAIN,
    CONFIRMED,
    PLAIN,
];
