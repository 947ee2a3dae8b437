use limpet_store::{Result, Store};
use limpet_worker_core::model::{NetworkSettings, RegionSettings};

use super::{Bench, race, samples::Samples};

impl Samples {
    /// Something set for the network, and for two regions.
    pub fn network_settings(&self) -> NetworkSettings {
        let eu868 = RegionSettings {
            rx1_delay: Some(15),
            rx1_dr_offset: Some(5),
            rx2_dr: Some(3),
            rx2_frequency: Some(869_500_000),
            adr_disabled: Some(true),
            min_dr: Some(1),
            max_dr: Some(4),
            installation_margin: Some(0),
            downlink_tx_power: Some(-1),
            extra_channels: Some(vec![867_100_000, 867_300_000]),
            uplink_dwell_time_400ms: Some(true),
            downlink_dwell_time_400ms: Some(false),
            repeater_compatible: Some(true),
        };
        let us915_1 = RegionSettings { extra_channels: Some(Vec::new()), ..RegionSettings::default() };
        NetworkSettings {
            net_id: Some(0x00ff_ffff),
            reply_delay: Some(0),
            deduplication_delay: Some(1_000),
            regions: [("eu868".to_owned(), eu868), ("us915_1".to_owned(), us915_1)].into(),
        }
    }
}

/// All of it in one property: a network has its settings once.
pub(super) async fn settings_of_the_network_are_replaced_by_who_has_read_them(bench: Bench) -> Result<()> {
    let (store, new): (&dyn Store, _) = (&*bench.store, &bench.new);
    let before = store.network_settings().await?;
    let version = store.membership_version().await?;
    let first = NetworkSettings { reply_delay: Some(7), ..new.network_settings() };
    assert!(store.replace_network_settings(&before, &first).await?);
    assert_eq!(store.network_settings().await?, first, "each field comes back");
    assert_ne!(store.membership_version().await?, version, "whoever follows the version learns of it");

    let stale = NetworkSettings { reply_delay: Some(8), ..before };
    let version = store.membership_version().await?;
    let other = NetworkSettings { net_id: Some(1), ..first.clone() };
    assert!(!store.replace_network_settings(&stale, &other).await?, "another one was faster");
    assert_eq!(store.network_settings().await?, first);
    assert_eq!(store.membership_version().await?, version, "nothing was written");

    // Of many at once, each with something of its own, one is taken.
    let taken = race(8, |n| {
        let (store, first) = (bench.store.clone(), first.clone());
        async move {
            let mine = NetworkSettings { reply_delay: Some(100 + n as u32), ..first.clone() };
            Ok::<_, limpet_store::StoreError>((n, store.replace_network_settings(&first, &mine).await?))
        }
    });
    let taken = taken.await.into_iter().collect::<Result<Vec<_>>>()?;
    let winners: Vec<_> = taken.iter().filter(|(_, taken)| *taken).map(|(n, _)| 100 + *n as u32).collect();
    let now = store.network_settings().await?;
    assert_eq!(winners, [now.reply_delay.unwrap_or_default()]);

    // Nothing set is a value like any other.
    assert!(store.replace_network_settings(&now, &NetworkSettings::default()).await?);
    assert_eq!(store.network_settings().await?, NetworkSettings::default());
    Ok(())
}
