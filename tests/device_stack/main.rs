//! A real device stack (crate `lorawan-device`) behind three gateways, against a real `limpet up`: joins, uplinks and
//! downlinks in both receive windows, on the air as the stack has it.
//!
//! Only the air is not real: [`radio`] hands what the stack sends to three virtual gateways, and lets it hear what they
//! transmit in a window that it opened, at that window's time, frequency and data rate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod network;
mod plan;
mod radio;
mod radio_tests;
mod run;
#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
mod support;

use lorawan_device::region::{self, AU915, Subband, US915};

use plan::{Band, Frame};

/// The join is refused in RX1, so that a JoinAccept is heard in RX2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eu868() {
    run::run(eu868_band()).await;
}

/// What is set for a region is told to those who join then, and changes nothing for those who joined before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eu868_while_its_settings_change() {
    run::settings::run(Band { join_in: 1, ..eu868_band() }).await;
}

fn eu868_band() -> Band {
    Band {
        name: "eu868",
        api: chirpstack_api::common::Region::Eu868,
        stack: region::Configuration::new(region::Region::EU868),
        data_rates: &plan::EU868_RATES,
        channels: &[
            868_100_000,
            868_300_000,
            868_500_000,
            867_100_000,
            867_300_000,
            867_500_000,
            867_700_000,
            867_900_000,
        ],
        rx1: |uplink| uplink,
        rx2: Frame { frequency: 869_525_000, datr: plan::lora(12, 125) },
        join_in: 2,
        settings: &[],
        asked: 0,
        seed: 868,
    }
}

/// The second sub-band: channels 8 to 15. The stack joins there first, and must stay there by the CFList (type 1).
///
/// Channel 65 and DR4 stay out: with them the stack looks at the wrong bits of its channel mask, and finds no channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn us915_one_sub_band() {
    let mut stack = US915::new();
    stack.set_join_bias(Subband::_2);
    let band = Band {
        name: "us915_1",
        api: chirpstack_api::common::Region::Us915,
        stack: stack.into(),
        data_rates: &plan::US915_RATES,
        channels: &[
            903_900_000,
            904_100_000,
            904_300_000,
            904_500_000,
            904_700_000,
            904_900_000,
            905_100_000,
            905_300_000,
        ],
        rx1: plan::us915_rx1,
        rx2: Frame { frequency: 923_300_000, datr: plan::lora(12, 500) },
        join_in: 1,
        settings: &[],
        asked: 0,
        seed: 915,
    };
    run::run(band).await;
}

/// The second sub-band: channels 8 to 15. The stack has the first downlink channel at 922.3 MHz: its radio hears there what is at 923.3,
/// where the regional parameters have it. It does not know TxParamSetupReq.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn au915_one_sub_band() {
    let mut stack = AU915::new();
    stack.set_join_bias(Subband::_2);
    let band = Band {
        name: "au915_1",
        api: chirpstack_api::common::Region::Au915,
        stack: stack.into(),
        data_rates: &plan::AU915_RATES,
        channels: &[
            916_800_000,
            917_000_000,
            917_200_000,
            917_400_000,
            917_600_000,
            917_800_000,
            918_000_000,
            918_200_000,
        ],
        rx1: plan::au915_rx1,
        rx2: Frame { frequency: 923_300_000, datr: plan::lora(12, 500) },
        join_in: 1,
        settings: &[],
        asked: 3,
        seed: 928,
    };
    run::run(band).await;
}

/// The stack listens for DR0 in RX2 whatever it is told, and the band's own is DR2: so the network is set to that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in865() {
    run::run(Band {
        name: "in865",
        api: chirpstack_api::common::Region::In865,
        stack: region::Configuration::new(region::Region::IN865),
        data_rates: &plan::IN865_RATES,
        channels: &[865_062_500, 865_402_500, 865_985_000, 865_700_000, 866_200_000],
        rx1: |uplink| uplink,
        rx2: Frame { frequency: 866_550_000, datr: plan::lora(12, 125) },
        join_in: 1,
        settings: &["rx2_dr=0", "extra_channels=865700000,866200000"],
        asked: 0,
        seed: 865,
    })
    .await;
}
