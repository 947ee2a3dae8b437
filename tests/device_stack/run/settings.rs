//! The settings of a region change while a device is there: it is answered where it was told to listen, follows by MAC commands, and is
//! told with the next join.

use super::*;

/// What is set, in seconds; and the two channels that a JoinAccept tells of then.
const RX1_DELAY: u32 = 3;
const CHANNELS: &str = "extra_channels=867100000,867300000";

pub async fn run(band: Band) {
    let (network, mut stack) = joined(&band).await;
    answered(&band, &network, &mut stack, 1).await;

    let delay = format!("rx1_delay={RX1_DELAY}");
    network.ctl(&["region", "set", band.name, &delay, CHANNELS]);
    answered_in(&band, &network, &mut stack, 1, 1).await;
    answered(&band, &network, &mut stack, RX1_DELAY).await;
    join(&band, &network, &mut stack).await;
    answered(&band, &network, &mut stack, RX1_DELAY).await;

    network.ctl(&["region", "unset", band.name, "rx1_delay", "extra_channels"]);
    answered_in(&band, &network, &mut stack, RX1_DELAY, 1).await;
    answered(&band, &network, &mut stack, 1).await;
    join(&band, &network, &mut stack).await;
    answered(&band, &network, &mut stack, 1).await;
    network.stop().await;
}

/// A confirmed uplink is acknowledged in RX1, so many seconds later; and another one, which all gateways refuse to answer there, in RX2.
async fn answered(band: &Band, network: &Network, stack: &mut Stack, rx1_delay: u32) {
    for window in [1, 2] {
        answered_in(band, network, stack, rx1_delay, window).await;
    }
}

async fn answered_in(band: &Band, network: &Network, stack: &mut Stack, rx1_delay: u32, window: u8) {
    refuse(network, window == 2);
    let response = stack.send(b"up", FPORT, true).await.unwrap();
    refuse(network, false);
    let exchange = last(stack);
    assert!(matches!(response, SendResponse::DownlinkReceived(_)), "RX{window}: {response:?}, {exchange:#?}");
    check_window(band, exchange, window, (rx1_delay + u32::from(window) - 1) * 1_000_000);
    assert!(header(&exchange.heard.as_ref().unwrap().downlink.txpk.data).ack);
}
