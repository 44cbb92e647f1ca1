//! The promises of the gateway, each as a scenario with the real binary and real peers.
//!
//! One file per scenario, named as the scenario; `support` is the harness. Every wait is for a
//! condition with a deadline, every port is free, every folder is temporary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../corpus/mod.rs"]
mod corpus;
// Shared with tests/chaos, which uses other parts of it.
#[allow(dead_code)]
mod support;

mod a_collector_is_reached_over_tls;
mod a_collector_that_is_away_costs_spans_only;
mod a_commitment_is_reported_to_an_absent_sender;
mod a_commitment_is_reported_where_it_was_asked;
mod a_commitment_list_is_the_modalitys_own_manifest;
mod a_commitment_survives_a_kill;
mod a_conflicting_topology_is_told;
mod a_decoder_that_dies_costs_one_instance;
mod a_finding_comes_with_a_picture;
mod a_late_instance_makes_a_revision;
mod a_manifest_that_contradicts_its_model_is_refused;
mod a_missing_instance_is_waited_for;
mod a_modality_says_what_it_did;
mod a_model_is_chosen_by_rule;
mod a_model_that_misbehaves_is_fenced;
mod a_nacked_message_is_sent_again;
mod a_new_version_is_switched_under_load;
mod a_pacs_is_asked_for_its_count;
mod a_poisonous_study_is_set_aside_and_retried;
mod a_release_collision_is_resolved;
mod a_release_is_a_hint;
mod a_report_becomes_a_quantity;
mod a_report_crosses_other_messages;
mod a_second_process_on_the_same_spool_is_refused;
mod a_second_sigterm_stops_at_once;
mod a_series_becomes_a_volume;
mod a_shadow_is_never_published_to_clinicians;
mod a_study_has_one_trace;
mod a_study_is_found_by_its_hash;
mod a_study_without_a_model_is_skipped;
mod an_older_database_is_taken_over;
mod an_operator_completes_a_study;
mod an_operator_gives_a_message_up;
mod an_undecodable_image_fails_with_a_code;
mod an_unroutable_message_is_kept;
mod associations_are_admitted_by_rule;
mod bad_configurations_are_refused;
mod commitment_requests_are_answered_by_rule;
mod committed_instances_stay_as_long_as_promised;
mod demo_check_and_infer_work_offline;
mod disconnect_in_the_middle_of_a_data_set;
mod drift_shows_in_the_metrics;
mod echo_from_dcmtk_and_pynetdicom;
mod evaluate_tells_what_sklearn_tells;
mod every_event_in_every_state;
mod every_frame_of_an_instance_is_looked_at;
mod evidence_that_disagrees_is_told;
mod expected_series;
mod findings_equal_the_golden_ones;
mod full_disk_answers_a700_and_recovers;
mod hostile_bytes_cost_one_association;
mod hostile_instances_are_answered_by_rule;
mod hostile_uids_are_refused;
mod kill_after_the_store_response;
mod kill_between_outbox_and_release;
mod kill_in_the_middle_of_a_study;
mod manifests_are_signed;
mod models_build_on_each_other;
mod mpps_completes_a_study;
mod no_patient_data_in_logs_and_metrics;
mod orthanc_is_a_peer;
mod peers_speak_with_their_own_options;
mod probes_cost_nothing;
mod quarantine_is_shown_retried_and_deleted;
mod replay_finds_the_same_again;
mod same_instance_twice;
mod same_uid_other_bytes;
mod senders_come_back_when_there_is_room;
mod sigterm_drains;
mod slow_senders_cost_little_memory;
mod spooled_before_start;
mod stalled_peers_are_cut_by_timers;
mod stat_goes_before_routine;
mod the_broker_is_down_at_start;
mod the_broker_raises_an_alarm;
mod the_broker_restarts_in_the_middle;
mod the_file_broker_appends_lines;
mod the_ledger_answers_where_everything_is;
mod the_ledger_can_be_exported;
mod the_pacs_says_how_many;
mod two_senders_one_study;
