/*-------------------------------------------------------------------------
 *
 * cut_off.c
 *		Runs that are cut off before their end.
 *
 * The scheduler writes down what has become of a run that has lost its worker.
 * It learns of that from the worker's slot, or from what was noted of runs when
 * the server went down.  A run that may commit pieces of its work notes in the
 * task's row that it begins, so that the next one knows even if nobody was left
 * to say so.
 *
 * What has begun for a time is begun again for it, however late that is, and
 * counts as a restart.  Most also count as interruptions, of which a task is not
 * allowed many in a row: those that nobody but the task may be to blame for.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* What is recorded of a run that was cut off. */
static const ErrorData interruption = {
	.sqlerrcode = ERRCODE_ADMIN_SHUTDOWN,
	.message = "the run was interrupted: its worker or the server went away"
};

/* Note that a run for its time has begun, and will begin again: it has left no end. */
static void
cut_off_note(AlarmRow *alarm, const RunStart *start)
{
	ROW_SET(Int32, alarm, alarm_restarts, start->restarts + 1);
	ROW_SET(TimestampTz, alarm, alarm_last_run_at, start->started_at);
	ROW_SET_NULL(alarm, alarm_begun_at);
}

/*
 * Record that a run was cut off and count how many in a row were.  Return false if
 * these are too many, so that the task has failed; otherwise the caller writes the
 * alarm.
 */
static bool
cut_off_interrupted(Store *store, const RunEnd *run, AlarmRow *alarm, TsReport *report)
{
	int			interruptions = ROW_GET(Int32, alarm, alarm_interruptions) + 1;
	ErrorData	error = interruption;
	RunEnd		last = {.start = run->start,.status = RUN_INTERRUPTED,.error = &error};
	Failure		failure;

	ROW_SET(Int32, alarm, alarm_interruptions, interruptions);
	cut_off_note(alarm, run->start);
	if (interruptions < ts_max_interruptions)
	{
		history_record(run);
		return true;
	}

	error.message = psprintf("%d runs in a row were interrupted: their workers or the server went away",
							 interruptions);
	error.hint = "The callback may be what ends them. taskshed.retry_task() has it tried again.";
	last.run_id = history_record(&last);
	failure = failure_found(last.start, RUN_INTERRUPTED, &error);
	failure_log(last.start, &failure, alarm);
	last_run_note(alarm, &last);
	outcome_give_up(store, alarm, &last, report);
	return false;
}

/*
 * Record that a run that may commit pieces of its work is about to begin, so that
 * whatever happens, the next run knows that this one was.  Record also, if this run
 * finds it so, that an earlier one never came to its end.  Return false if the task
 * is not to run now after all.
 */
bool
cut_off_begin(Store *store, RunStart *start, TsReport *report)
{
	AlarmRow	alarm;
	RunStart	earlier;
	RunEnd		run = {.start = &earlier,.status = RUN_INTERRUPTED,.error = &interruption};
	bool		cut_off;

	if (outcome_lock_alone(store, start, &alarm, report) != FOUND_SAME)
		return false;
	if (!alarm_is_queued(&alarm) ||
		ROW_GET(TimestampTz, &alarm, alarm_run_at) > start->started_at)
	{
		report->fate = TS_FATE_LOOK;
		return false;
	}
	cut_off = !ROW_ISNULL(&alarm, alarm_begun_at);
	if (cut_off)
	{
		earlier = *start;
		earlier.started_at = ROW_GET(TimestampTz, &alarm, alarm_begun_at);
		earlier.worker_pid = 0;
		if (!cut_off_interrupted(store, &run, &alarm, report))
			return false;
		start->restarts = ROW_GET(Int32, &alarm, alarm_restarts);
	}
	ROW_SET(TimestampTz, &alarm, alarm_begun_at, start->started_at);
	if (cut_off)
		ending_go_on(store, &alarm, ENDING_AGAIN, &run);
	else
		store_update_alarm(store, &alarm);
	ForceSyncCommit();
	return true;
}

/*
 * Record that a run has lost its worker: the scheduler's part.  A run that was ended
 * because it would not stop has timed out; any other was interrupted, which uses no
 * attempt but is not tolerated for ever.
 *
 * Return whether the task is to run again, and how many of its runs in a row were
 * interrupted; again is set if somebody is changing it just now, so that this must
 * be called once more.
 */
bool
cut_off_record(Store *store, int64 id, const LostRun *lost, bool *again, int *interruptions)
{
	AlarmRow	alarm;
	TaskRow		task;
	RunStart	start;
	TsReport	report;
	ErrorData	error = {0};
	RunEnd		run = {.start = &start,.status = RUN_INTERRUPTED,.error = &interruption};
	Failure		failure;
	TM_Result	result = store_lock_alarm(store, id, &alarm, LockWaitSkip);

	*interruptions = 0;
	*again = (result == TM_WouldBlock || (result == TM_Ok && !followers_try_lock(store, &alarm, 1)));
	if (*again || result != TM_Ok || !store_get_task(store, id, &task))
		return true;

	/* known, if the server went down before that was noted */
	if (!ROW_ISNULL(&alarm, alarm_last_run_at) &&
		ROW_GET(TimestampTz, &alarm, alarm_last_run_at) == lost->started_at)
		return true;

	/* which run it was, if it has left no end yet */
	run_start_read(&start, &task, &alarm, lost->started_at);
	start.worker_pid = lost->worker_pid;
	start.owner = lost->owner;
	if (start.revision == lost->revision)
	{
		/* it may have been asked for a run beside its schedule meanwhile */
		start.extra = start.extra &&
			lost->scheduled_at != ROW_GET(TimestampTz, &alarm, alarm_scheduled_at);
		if (!start.extra)
			start.scheduled_at = ROW_GET(TimestampTz, &alarm, alarm_scheduled_at);
		if (start.scheduled_at != lost->scheduled_at || start.attempt != lost->attempt)
			return true;		/* it had come to its end after all */
	}
	else
	{
		/* somebody has changed the task, whose new definition was not run */
		start.scheduled_at = lost->scheduled_at;
		start.attempt = lost->attempt;
	}

	/* its end; what begins again for that time is not late */
	*interruptions = ROW_GET(Int32, &alarm, alarm_interruptions);
	if (!start.extra && lost->scheduled_at == ROW_GET(TimestampTz, &alarm, alarm_scheduled_at))
		ROW_SET(TimestampTz, &alarm, alarm_late_from, DT_NOEND);
	if (lost->timed_out)
	{
		error.sqlerrcode = ERRCODE_QUERY_CANCELED;
		error.message = "the run took longer than its timeout and would not stop; its worker was terminated";
		failure = failure_found(&start, RUN_TIMEOUT, &error);
		start.revision = lost->revision;
		outcome_failed(store, &start, &failure, &report);
		return true;
	}
	if (lost->bystander)
	{
		history_record(&run);
		cut_off_note(&alarm, &start);
	}
	else if (!cut_off_interrupted(store, &run, &alarm, &report))
		return false;
	else
		*interruptions = ROW_GET(Int32, &alarm, alarm_interruptions);
	ending_go_on(store, &alarm, ENDING_AGAIN, &run);
	return true;
}
