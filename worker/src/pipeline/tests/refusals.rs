//! What owners are told of frames that make no other event.

use super::*;

impl Net {
    async fn pending_logs(&self) -> Vec<(String, Uuid)> {
        let integration = limpet_store::IntegrationId(Uuid::from_u128(2));
        let waiting = self.store.pending(integration, DEVICE, 100).await.unwrap();
        let log = |e: &Event| match &e.kind {
            EventKind::Log(log) => Some((log.code.clone(), e.id)),
            _ => None,
        };
        waiting.iter().filter_map(|p| log(&p.event)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn refused_joins_are_told_to_the_owner_a_few_times_and_once_by_all_workers() {
    let net = Net::new("eu868", 2).await;
    let join = |nonce, key: &AesKey| JoinRequest::build(Eui64(9), DEVICE, nonce, key);
    let heard = async |phy: Vec<u8>| {
        for copy in [net.give(0, net.frame(1, CHANNEL, &phy, 7)), net.give(1, net.frame(2, CHANNEL, &phy, 7))] {
            assert_eq!(copy.await.unwrap(), DONE);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    };
    heard(join(1, &APP_KEY)).await;
    assert_eq!(net.pending_logs().await, []);
    heard(join(1, &APP_KEY)).await;
    heard(join(2, &AesKey([8; 16]))).await;
    let codes: Vec<_> = net.pending_logs().await.into_iter().map(|log| log.0).collect();
    assert_eq!(codes, ["OTAA", "UPLINK_MIC"]);
    for nonce in 3..20 {
        heard(join(nonce, &AesKey([8; 16]))).await;
    }
    let told = net.pending_logs().await.len();
    assert!((3..20).contains(&told), "{told} events");
}

#[tokio::test(start_paused = true)]
async fn a_lost_counter_and_a_retransmission_are_told_to_the_owner() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    for fcnt in [5, 6, 6, 2] {
        net.give(0, net.frame(1, CHANNEL, &uplink(fcnt, false), 5)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let codes = async || net.pending_logs().await.into_iter().map(|log| log.0).collect::<Vec<_>>();
    assert_eq!(codes().await, ["UPLINK_F_CNT_RETRANSMISSION", "UPLINK_F_CNT_RESET"]);
    // One that is acknowledged again is told of too.
    for _ in 0..2 {
        net.give(0, net.frame(1, CHANNEL, &uplink(7, true), 5)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let told = codes().await.iter().filter(|code| *code == "UPLINK_F_CNT_RETRANSMISSION").count();
    assert_eq!((told, net.downlinks().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_a_stranger_is_not_stored_and_its_device_is_heard_once_it_is_added() {
    let net = Net::new("eu868", 1).await;
    let stored = async || net.store.reception_keys(UnixMicros(0), None, 10).await.unwrap().len();
    net.give(0, net.frame(1, CHANNEL, &uplink(0, false), 5)).await.unwrap();
    let strange = JoinRequest::build(Eui64(9), Eui64(77), 1, &APP_KEY);
    net.give(0, net.frame(1, CHANNEL, &strange, 5)).await.unwrap();
    assert_eq!(stored().await, 0);
    net.personalize().await;
    net.give(0, net.frame(1, CHANNEL, &uplink(1, false), 5)).await.unwrap();
    assert_eq!((stored().await, net.webhook.ups().len()), (1, 1));
}
