//! What every store must do: one property for each promise of the trait. Run [`suite`] against each implementation.
//!
//! Properties take identities of their own at random, so that they may share one store, also one that held something
//! before. None of them depends on timing.

mod directory;
mod joins;
mod lists;
mod membership;
mod moving;
mod network;
mod pending;
mod queue;
mod quota;
mod receptions;
mod samples;
mod sessions;
mod settings;

use std::{future::Future, pin::Pin, sync::Arc, task::Poll};

pub use samples::Samples;

use limpet_store::{Result, Store, StoreError};

/// One promise, checked.
pub struct Property {
    pub name: &'static str,
    run: fn(Bench) -> Checking,
}

type Checking = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// What a property works with.
#[derive(Clone)]
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub new: Samples,
}

macro_rules! properties {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// All properties.
        pub fn properties() -> Vec<Property> {
            vec![$(Property {
                name: concat!(stringify!($module), "::", stringify!($name)),
                run: |bench| Box::pin($module::$name(bench)),
            }),*]
        }
    };
}

properties![
    receptions::the_same_reception_again_changes_nothing,
    receptions::a_key_gives_its_own_receptions_in_order,
    receptions::a_clock_years_ahead_loses_no_reception,
    receptions::the_sweep_walks_all_keys,
    receptions::what_has_expired_is_gone,
    sessions::a_session_comes_back_as_it_was_written,
    sessions::a_session_is_created_once,
    sessions::only_the_next_revision_is_taken,
    sessions::one_writer_wins_each_revision,
    sessions::one_read_gives_all_sessions_of_an_address,
    sessions::a_deleted_session_is_gone_with_its_marks,
    sessions::the_mark_out_only_grows,
    sessions::the_mark_sent_only_grows,
    sessions::candidates_are_the_sessions_with_what_belongs_to_them,
    sessions::marks_leave_the_row_alone,
    joins::a_device_that_never_joined_has_a_fresh_state,
    joins::a_join_is_taken_whole_or_not_at_all,
    joins::one_of_many_joins_wins,
    joins::flushed_nonces_may_be_used_again,
    joins::what_is_kept_of_a_join_shrinks_while_the_state_stays,
    joins::many_nonces_are_flushed_whole,
    queue::numbers_count_up_and_are_never_given_twice,
    queue::many_writers_get_distinct_numbers,
    queue::an_id_is_taken_once,
    queue::one_of_many_writers_of_an_id_wins,
    queue::the_queue_is_read_from_where_one_stood,
    queue::a_long_queue_is_flushed_up_to_a_number,
    pending::the_same_event_again_changes_nothing,
    pending::events_come_in_the_order_of_their_keys,
    pending::an_event_waits_behind_those_of_its_slot_and_before,
    pending::who_sends_misses_nothing_that_is_put_meanwhile,
    pending::the_longest_waiting_device_comes_first,
    pending::integrations_take_turns_and_some_stand_aside,
    pending::an_integration_sees_its_own_events_only,
    pending::trimming_drops_the_oldest,
    pending::trimming_holds_to_bytes_and_age,
    pending::the_backlog_tells_what_waits_for_whom,
    pending::a_lease_has_one_holder,
    pending::one_of_many_takes_a_lease,
    pending::who_asks_for_a_lease_many_times_at_once_has_it,
    directory::tenants_come_and_go,
    directory::an_email_is_taken_once,
    directory::a_user_is_made_once,
    directory::a_parent_must_exist,
    directory::identities_are_taken_once,
    directory::a_deleted_tenant_takes_everything_along,
    directory::a_deleted_application_takes_its_devices_along,
    directory::a_deleted_device_leaves_nothing,
    directory::a_device_that_is_added_again_goes_on_counting,
    directory::what_a_broken_deletion_leaves_is_nobodys,
    directory::a_used_profile_stays,
    directory::an_update_keeps_the_app_key,
    directory::an_update_never_moves_a_thing_to_another_tenant,
    directory::a_device_comes_with_its_context,
    directory::the_first_value_of_a_setting_holds,
    directory::the_gateway_set_has_a_version,
    directory::the_gateway_sets_version_is_raised_and_never_lowered,
    directory::what_has_changed_of_the_gateway_set_is_told_or_said_to_be_unknown,
    directory::many_who_change_gateways_at_once_leave_no_hole,
    directory::notes_of_devices_and_gateways_are_kept,
    quota::a_tenant_has_no_more_gateways_than_it_may,
    quota::a_tenant_has_no_more_devices_than_it_may,
    lists::names_may_repeat_and_order_is_by_name,
    lists::pages_cover_everything_once,
    lists::a_search_ignores_case_and_takes_nothing_literally_special,
    lists::devices_are_listed_by_application_and_profile,
    lists::gateways_are_listed_by_tenant,
    lists::totals_count_the_whole_network,
    lists::what_breaks_off_shows_nothing_of_anothers,
    lists::api_keys_are_listed_by_whom_they_act_for,
    membership::the_last_heartbeat_holds,
    membership::a_forgotten_server_is_gone,
    membership::a_revocation_stays_and_spares_the_next_of_that_name,
    membership::what_is_known_of_a_token_only_grows,
    membership::many_balancers_count_one_token,
    membership::a_token_is_revoked_and_expires,
    membership::each_change_of_who_may_take_part_moves_the_version,
    moving::a_restored_device_is_as_it_was,
    moving::a_restored_device_goes_on,
    moving::a_long_device_is_moved_in_pieces,
    moving::what_people_provision_is_restored,
    moving::settings_are_listed_and_written_over,
    moving::the_gateway_sets_version_is_restored,
    moving::pending_events_are_restored,
    settings::settings_of_the_network_are_replaced_by_who_has_read_them,
];

impl Property {
    /// Checks it on this store; a broken promise panics with the property's name.
    pub async fn check(&self, store: Arc<dyn Store>) {
        let bench = Bench { store, new: Samples::new() };
        let outcome = (self.run)(bench).await;
        assert!(outcome.is_ok(), "{}: the store failed: {outcome:?}", self.name);
    }
}

/// Checks every property, each on the store that `make` gives for it (a new one or always the same).
pub async fn suite<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    for property in properties() {
        // So that the test's output says where it stood, also when a store never answers.
        println!("checking {}", property.name);
        property.check(make().await).await;
    }
}

/// Runs `count` tasks at once and gives what they answered.
async fn race<T, F, Fut>(count: u64, task: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(u64) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(task(n))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        if let Ok(answer) = task.await {
            answers.push(answer);
        }
    }
    assert_eq!(answers.len() as u64, count, "a racing task ended without an answer");
    answers
}

/// Lets it go on when it wakes up `steps` times, then drops it. `None` if it was not over by then.
async fn broken_off<T>(work: impl Future<Output = T>, steps: u32) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut left = steps;
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

fn assert_exists<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(StoreError::AlreadyExists(_))), "must say that it exists: {answer:?}");
}

fn assert_missing<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(StoreError::NotFound(_))), "must say that it does not exist: {answer:?}");
}
