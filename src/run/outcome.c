/*-------------------------------------------------------------------------
 *
 * outcome.c
 *		What the end of a run writes into the task's rows.
 *
 * A run compares the alarm with what it was when the run began.  If its
 * revision has been raised, somebody's change says when the task runs next:
 * then the run is counted, and no more.  If the task was removed nothing is
 * written.  A pause does not raise the revision: the run's outcome and the
 * pause both stand.
 *
 * All functions here need a transaction with an active snapshot, wait for
 * uncommitted changes of the task by others, and fill in what the scheduler
 * is to be told once the transaction has committed.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* So many missed times at most are recorded at once. */
#define MAX_MISSED			100

/*
 * Lock the alarm of a task whose run does not end yet, and say what has become of the task.
 * Unless it is the same, the report is filled in.
 */
Found
outcome_lock_alone(Store *store, const RunStart *start, AlarmRow *alarm, TsReport *report)
{
	TM_Result	result = alarm_lock(store, start->id, &start->tids, alarm, start->impatient);

	report->id = start->id;
	if (result == TM_Deleted)
	{
		report->fate = TS_FATE_GONE;
		return FOUND_GONE;
	}
	if (ROW_GET(Int64, alarm, alarm_revision) != start->revision)
	{
		report->fate = TS_FATE_LOOK;
		return FOUND_CHANGED;
	}

	/* (the alarm of a restored task, say, does not know where its task is) */
	if (start->tids.known)
		ROW_SET(Pointer, alarm, alarm_task_tid, &start->tids.task);
	return FOUND_SAME;
}

/*
 * The same at a run's end.  The tasks that run after this one are locked with it, in the
 * order of their names.  If there are none any more, that is kept in mind.
 */
static Found
outcome_lock(Store *store, const RunStart *start, AlarmRow *alarm, TsReport *report)
{
	FollowerNames *followers;
	Found		found;

	if (!start->followed)
		return outcome_lock_alone(store, start, alarm, report);
	followers = followers_find(store, start->id);
	followers_lock(store, followers, start->task_id);
	found = outcome_lock_alone(store, start, alarm, report);
	followers_lock(store, followers, NULL);
	if (found != FOUND_GONE && followers->nedges == 0 && followers_find(store, start->id)->nedges == 0)
		ROW_SET_NULL(alarm, alarm_followed);
	return found;
}

/*
 * Count a run of the schedule that is over, with all its attempts.  A count of 0
 * is one of another task of this name, whose failure is not this one's.
 */
static void
outcome_count_run(AlarmRow *alarm, const RunStart *start, bool failed)
{
	int64		count = ROW_GET(Int64, alarm, alarm_run_count) + 1;

	ROW_SET(TimestampTz, alarm, alarm_previous_run_at, start->scheduled_at);
	ROW_SET(Int64, alarm, alarm_run_count, count);
	if (failed && count > 0)
		ROW_SET(Int32, alarm, alarm_failures_in_row,
				ROW_GET(Int32, alarm, alarm_failures_in_row) + 1);
}

/*
 * Read again what limits a task's runs, if it may have changed.  That can be while a
 * run goes on, and leaves the revision as it is: then the run ends by what it is now.
 * Whoever changes it writes the alarm as well.
 */
static void
outcome_heed_changes(Store *store, RunStart *start, const AlarmRow *alarm)
{
	TaskRow		task;

	if (start->tids.known && ItemPointerEquals(&start->tids.alarm, (ItemPointer) &alarm->tid))
		return;
	if (store_get_task(store, start->id, &task))
		run_start_read_limits(start, &task);
}

/*
 * End a task that is done: its rows go.  If it was asked for a run beside its
 * schedule while it had its last one, that is now the last.
 */
static void
outcome_remove(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	if (!ROW_ISNULL(alarm, alarm_resume_at))
	{
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, ROW_GET(TimestampTz, alarm, alarm_run_at));
		ROW_SET_NULL(alarm, alarm_resume_at);
		alarm_count_anew(alarm);
		ROW_SET(TimestampTz, alarm, alarm_late_from, DT_NOEND);
		ending_go_on(store, alarm, ENDING_NEXT, run);
		report->fate = TS_FATE_LOOK;
		return;
	}
	ending_remove_done(store, alarm, run);
	report->fate = TS_FATE_GONE;
}

/* Have the task stay as failed. */
static void
outcome_fail(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	ending_fail(store, alarm, run);
	report->fate = TS_FATE_GONE;
}

/* Have the task stay as failed, and with it a run beside its schedule. */
void
outcome_give_up(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	if (!ROW_ISNULL(alarm, alarm_resume_at))
		ROW_SET(TimestampTz, alarm, alarm_run_at, ROW_GET(TimestampTz, alarm, alarm_resume_at));
	ROW_SET_NULL(alarm, alarm_resume_at);
	outcome_fail(store, alarm, run, report);
}

/* Have the task go on as its alarm says. */
static void
outcome_go_on(Store *store, AlarmRow *alarm, Ending ending, const RunEnd *run, TsReport *report)
{
	ending_go_on(store, alarm, ending, run);
	report->fate = TS_FATE_GONE;
	if (alarm_is_queued(alarm))
	{
		report->fate = TS_FATE_NEXT;
		report->next_run_at = ROW_GET(TimestampTz, alarm, alarm_run_at);
	}
}

/*
 * Have the task wait for another time, or attempt; after that if it has been
 * asked for a run beside its schedule meanwhile.
 */
static void
outcome_wait(Store *store, AlarmRow *alarm, TimestampTz run_at, Ending ending, const RunEnd *run,
			 TsReport *report)
{
	if (ROW_ISNULL(alarm, alarm_resume_at))
		ROW_SET(TimestampTz, alarm, alarm_run_at, run_at);
	else
		ROW_SET(TimestampTz, alarm, alarm_resume_at, run_at);
	outcome_go_on(store, alarm, ending, run, report);
}

/*
 * End a run beside the schedule: that is as it was, unless another such run has
 * been asked for meanwhile.
 */
static void
outcome_extra(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	if (!ROW_ISNULL(alarm, alarm_resume_at) &&
		ROW_GET(TimestampTz, alarm, alarm_run_at) != run->start->scheduled_at)
	{
		ending_go_on(store, alarm, ENDING_NEXT, run);
		report->fate = TS_FATE_LOOK;
		return;
	}
	if (!ROW_ISNULL(alarm, alarm_resume_at))
	{
		ROW_SET(TimestampTz, alarm, alarm_run_at, ROW_GET(TimestampTz, alarm, alarm_resume_at));
		ROW_SET_NULL(alarm, alarm_resume_at);
	}
	outcome_wait(store, alarm, ROW_GET(TimestampTz, alarm, alarm_run_at), ENDING_NEXT, run, report);
}

/* Return whether somebody has asked for one more run since this one began. */
static bool
outcome_was_asked(const AlarmRow *alarm, const RunStart *start)
{
	return !ROW_ISNULL(alarm, alarm_asked_at) &&
		ROW_GET(TimestampTz, alarm, alarm_asked_at) != start->asked_at;
}

/*
 * Have a lasting task wait for the next round of what it runs after, which may be there
 * already.  If that cannot come, it ends.
 */
static void
outcome_next_round(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	const RunStart *start = run->start;
	char	   *lost = NULL;
	NextRound	round = followers_next_round(store, alarm, &lost);
	bool		over = catch_up_is_over(GetCurrentTimestamp(), start->until,
										ROW_GET(Int64, alarm, alarm_run_count), start->max_runs);

	/* one that ends waits no more, so that it can be sent round again */
	over = over || round == ROUND_OVER;
	if (over || round == ROUND_LOST)
		ROW_SET_NULL(alarm, alarm_waiting_since);
	if (round == ROUND_LOST)
	{
		ending_go_on(store, alarm, ENDING_NEXT, run);
		ending_lost(store, start->id, lost);
		report->fate = TS_FATE_LOOK;
	}
	else if (!over)
	{
		if (!start->follows && outcome_was_asked(alarm, start))
			waiting_begin(alarm, start->task);
		outcome_go_on(store, alarm, ENDING_NEXT, run, report);
		if (round == ROUND_BEGUN)
			ending_consider(store, start->id);
	}
	else if (run->status == RUN_MISSED || run->status == RUN_SUCCEEDED)
		outcome_remove(store, alarm, run, report);
	else
		outcome_fail(store, alarm, run, report);
}

/*
 * Have a recurring task go on to its next time.  If it has had its last run, it
 * ends as a one-off task does.
 */
static void
outcome_advance(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	const RunStart *start = run->start;
	bool		missed = (run->status == RUN_MISSED);
	TimestampTz next;

	ROW_SET(Int32, alarm, alarm_attempt, 0);
	ROW_SET_NULL(alarm, alarm_late_from);
	ROW_SET_NULL(alarm, alarm_shortage_since);
	if (start->no_grid != NULL)
	{
		last_run_set(alarm, RUN_FAILED, "22023", start->no_grid);
		outcome_fail(store, alarm, run, report);
	}
	else if (start->lasting)
		outcome_next_round(store, alarm, run, report);
	else if (!catch_up_next(start, missed, ROW_GET(Int64, alarm, alarm_run_count), &next))
	{
		if (missed || run->status == RUN_SUCCEEDED)
			outcome_remove(store, alarm, run, report);
		else
			outcome_fail(store, alarm, run, report);
	}
	else
	{
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, next);
		outcome_wait(store, alarm, next, ENDING_NEXT, run, report);
	}
}

/*
 * Record the times that have passed without a run, the earliest first.  Return the
 * number of that in the history.
 */
static int64
outcome_record_missed(const RunStart *start)
{
	RunStart	each = *start;
	RunEnd		run = {.start = &each,.status = RUN_MISSED};
	int64		first = history_record(&run);

	for (int n = 1; n < MAX_MISSED && catch_up_next_missed(start, &each.scheduled_at); n++)
		(void) history_record(&run);
	return first;
}

/* Record that a time was missed: the run for it was too late. */
void
outcome_missed(Store *store, const RunStart *start, TsReport *report)
{
	RunEnd		run = {.start = start,.status = RUN_MISSED};
	AlarmRow	alarm;

	if (outcome_lock(store, start, &alarm, report) != FOUND_SAME)
		return;
	run.run_id = outcome_record_missed(start);
	last_run_set(&alarm, RUN_MISSED, NULL, NULL);
	if (start->recurring)
		outcome_advance(store, &alarm, &run, report);
	else
		outcome_fail(store, &alarm, &run, report);
}

/* Pause a task that fails all the time, if it was to be. */
static void
outcome_pause_failing(AlarmRow *alarm, RunEnd *run)
{
	if (ts_pause_after_failures > 0 && ROW_ISNULL(alarm, alarm_paused_at) &&
		ROW_GET(Int32, alarm, alarm_failures_in_row) >= ts_pause_after_failures)
	{
		ROW_SET(TimestampTz, alarm, alarm_paused_at, GetCurrentTimestamp());
		run->paused = true;
	}
}

/*
 * End the run of a task that somebody has changed meanwhile.  What comes next is as
 * the change says, but the run was one of those that the task may have, and the
 * task's row says how it went; unless it would have been tried again.  A change that
 * leaves the task without another run has come too late.
 */
static void
outcome_changed(Store *store, AlarmRow *alarm, RunEnd *run, TsReport *report)
{
	const RunStart *start = run->start;
	TaskRow		task;
	TimestampTz unused;
	bool		succeeded = (run->status == RUN_SUCCEEDED);
	bool		failed = (!succeeded && run->status != RUN_CANCELLED);
	bool		again;

	/* if the extension was made anew, the id is another task's by now */
	if (!store_get_task(store, start->id, &task) ||
		ROW_GET(TimestampTz, &task, task_created_at) != start->created_at)
		return;

	/* how it went, and whether it would have been tried again */
	last_run_note(alarm, run);
	again = failed && (retry_is_shortage(run->error) || retry_next(start, &unused));
	if (start->extra || again)
	{
		ending_go_on(store, alarm, start->extra ? ENDING_NEXT : ENDING_AGAIN, run);
		return;
	}

	/* was it the last that the task may have? */
	outcome_count_run(alarm, start, failed);
	if (!ROW_ISNULL(&task, task_max_runs) &&
		catch_up_had_all_runs(ROW_GET(Int64, alarm, alarm_run_count),
							  ROW_GET(Int32, &task, task_max_runs)))
	{
		RunStart	start_of_last = *start;
		RunEnd		last = *run;

		start_of_last.tids.known = false;
		last.start = &start_of_last;
		if (succeeded)
			outcome_remove(store, alarm, &last, report);
		else
			outcome_fail(store, alarm, &last, report);
		return;
	}

	/* one that was replaced may fare better */
	if (failed && start->recurring && ItemPointerEquals(&task.tid, (ItemPointer) &start->tids.task))
		outcome_pause_failing(alarm, run);
	ending_go_on(store, alarm, ENDING_NEXT, run);
}

/*
 * Have a one-off task run again that has succeeded, and that somebody has added once
 * more, as it is, while it ran.
 */
static void
outcome_once_more(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report)
{
	outcome_count_run(alarm, run->start, false);
	ROW_SET(Int32, alarm, alarm_attempt, 0);
	ROW_SET(TimestampTz, alarm, alarm_late_from, ROW_GET(TimestampTz, alarm, alarm_asked_at));
	if (ROW_ISNULL(alarm, alarm_resume_at))
		ROW_SET(TimestampTz, alarm, alarm_run_at, ROW_GET(TimestampTz, alarm, alarm_scheduled_at));
	ending_go_on(store, alarm, ENDING_NEXT, run);
	report->fate = TS_FATE_LOOK;
}

/* End a run that has succeeded: a one-off task is done, a recurring one goes on. */
void
outcome_succeeded(Store *store, const RunStart *start, const char *result, TsReport *report)
{
	RunEnd		run = {.start = start,.status = RUN_SUCCEEDED,.result = result};
	RunStart	now;
	AlarmRow	alarm;

	/* a plain one-off task that nobody has changed: the short way */
	run.run_id = history_record(&run);
	if (!start->recurring && !start->extra && !start->followed && ending_try_remove(store, &run))
	{
		report->id = start->id;
		report->fate = TS_FATE_GONE;
		return;
	}

	/* what has become of the task meanwhile? */
	switch (outcome_lock(store, start, &alarm, report))
	{
		case FOUND_GONE:
			return;
		case FOUND_CHANGED:
			outcome_changed(store, &alarm, &run, report);
			return;
		case FOUND_SAME:
			break;
	}

	/* it is as it was */
	last_run_note(&alarm, &run);
	if (start->extra)
	{
		outcome_extra(store, &alarm, &run, report);
		return;
	}
	if (!start->recurring)
	{
		if (outcome_was_asked(&alarm, start))
			outcome_once_more(store, &alarm, &run, report);
		else
			outcome_remove(store, &alarm, &run, report);
		return;
	}
	now = *start;
	run.start = &now;
	outcome_heed_changes(store, &now, &alarm);
	outcome_count_run(&alarm, &now, false);
	outcome_advance(store, &alarm, &run, report);
}

/*
 * End a run that has failed.  It is tried again if it has attempts left, or if that
 * is not its fault; otherwise a one-off task has failed too, and a recurring one
 * goes on.
 */
void
outcome_failed(Store *store, const RunStart *start, const Failure *failure, TsReport *report)
{
	RunEnd		run = {.start = start,.status = failure->status,.error = failure->error};
	RunStart	now;
	AlarmRow	alarm;
	TimestampTz retry_at;
	bool		cancelled = (failure->status == RUN_CANCELLED);
	Found		found;

	run.run_id = history_record(&run);
	found = outcome_lock(store, start, &alarm, report);
	if (found == FOUND_SAME && retry_outlast_shortage(start, failure, &alarm, &retry_at))
	{
		/* as if it had not been, but that the next one knows of it */
		last_run_note(&alarm, &run);
		ROW_SET(Int32, &alarm, alarm_restarts, start->restarts + 1);
		ROW_SET(TimestampTz, &alarm, alarm_late_from, DT_NOEND);
		outcome_wait(store, &alarm, retry_at, ENDING_AGAIN, &run, report);
		return;
	}

	/* what has become of the task meanwhile? */
	failure_log(start, failure, found == FOUND_GONE ? NULL : &alarm);
	switch (found)
	{
		case FOUND_GONE:
			return;
		case FOUND_CHANGED:
			outcome_changed(store, &alarm, &run, report);
			return;
		case FOUND_SAME:
			break;
	}

	/* it is as it was: is the run to be tried again? */
	last_run_note(&alarm, &run);
	if (start->extra)
	{
		outcome_extra(store, &alarm, &run, report);
		return;
	}
	now = *start;
	run.start = &now;
	outcome_heed_changes(store, &now, &alarm);
	if (!cancelled && retry_next(&now, &retry_at))
	{
		ROW_SET(Int32, &alarm, alarm_attempt, start->attempt);
		outcome_wait(store, &alarm, retry_at, ENDING_AGAIN, &run, report);
		return;
	}

	/* it has failed for good, or was cancelled */
	outcome_count_run(&alarm, &now, !cancelled);
	if (start->recurring && !cancelled)
		outcome_pause_failing(&alarm, &run);
	if (start->recurring)
		outcome_advance(store, &alarm, &run, report);
	else
	{
		ROW_SET(Int32, &alarm, alarm_attempt, start->attempt);
		outcome_fail(store, &alarm, &run, report);
	}
}

/*
 * Have a task fail that is due, and whose owner does not exist.  Return whether it
 * is settled, so or otherwise; not if somebody is changing it just now.
 */
bool
outcome_orphaned(Store *store, int64 id, Oid owner, const char *reason)
{
	AlarmRow	alarm;
	TaskRow		task;
	RunStart	start;
	TsReport	report;
	ErrorData	error = {0};
	RunEnd		run = {.start = &start,.status = RUN_FAILED,.error = &error};
	Failure		failure;
	TM_Result	result = store_lock_alarm(store, id, &alarm, LockWaitSkip);

	if (result == TM_WouldBlock)
		return false;
	if (result != TM_Ok || !store_get_task(store, id, &task) || !alarm_is_queued(&alarm) ||
		ROW_GET(ObjectId, &alarm, alarm_owner) != owner ||
		ROW_GET(TimestampTz, &alarm, alarm_run_at) > GetCurrentTimestamp())
		return true;
	if (!followers_try_lock(store, &alarm, 1))
		return false;

	run_start_read(&start, &task, &alarm, GetCurrentTimestamp());
	start.worker_pid = 0;
	error.sqlerrcode = ERRCODE_UNDEFINED_OBJECT;
	error.message = psprintf("%s any more; it was called \"%s\"", reason,
							 NameStr(*ROW_GET(Name, &task, task_owner_name)));
	error.hint = "taskshed.set_owner() gives its tasks to another role.";
	history_record(&run);
	failure = failure_found(&start, RUN_FAILED, &error);
	failure_log(&start, &failure, &alarm);
	last_run_note(&alarm, &run);
	outcome_give_up(store, &alarm, &run, &report);
	return true;
}
