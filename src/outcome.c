/*-------------------------------------------------------------------------
 *
 * outcome.c
 *		What the end of a run writes into the task's rows.
 *
 * A run compares the alarm with what it was when the run began.  If its
 * revision has been raised, or the task removed, somebody's change has won
 * and nothing is written.  A pause does not raise it: the run's outcome and
 * the pause both stand.
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

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "taskshed.h"

/* A task with catch_up skip starts this late at most, in microseconds. */
#define SKIP_START_WITHIN	USECS_PER_SEC

/* How often (ms) a run that waits looks for a deadlock. */
#define DEADLOCK_CHECK		10

/* Longest error message kept in a task's row, in bytes. */
#define MAX_ERROR_LENGTH	2048

static TimeoutId deadlock_check;

/* Takes from a task's rows what a run needs to know of them at its end. */
void
outcome_start(RunStart *start, const TaskRow *task, const AlarmRow *alarm, TimestampTz now)
{
	start->id = ROW_GET(Int64, alarm, alarm_id);
	start->revision = ROW_GET(Int64, alarm, alarm_revision);
	start->run_at = ROW_GET(TimestampTz, alarm, alarm_run_at);
	start->anchor = ROW_GET(TimestampTz, alarm, alarm_anchor);
	start->attempt = ROW_GET(Int32, alarm, alarm_attempt) + 1;
	start->previous_run_at = ROW_ISNULL(alarm, alarm_previous_run_at) ? DT_NOBEGIN :
		ROW_GET(TimestampTz, alarm, alarm_previous_run_at);
	start->started_at = now;
	start->recurring = !ROW_ISNULL(task, task_every);
	if (start->recurring)
		start->every = *ROW_GET(IntervalP, task, task_every);
	start->zone = pg_tzset(TextDatumGetCString(ROW_DATUM(task, task_timezone)));
	start->catch_up = *VARDATA_ANY(DatumGetTextPP(ROW_DATUM(task, task_catch_up)));
}

/* Is it too late for this run? */
bool
outcome_is_missed(const RunStart *start)
{
	return start->catch_up == 's' &&
		start->started_at - start->run_at > SKIP_START_WITHIN;
}

/*
 * The next time of a recurring task; false if there is none.  With catch_up
 * coalesce a run stands for all times up to its start, with all for its own
 * time only, and with skip those that may still start are left to come.
 */
static bool
outcome_next(const RunStart *start, bool missed, TimestampTz *next)
{
	TimestampTz after = start->run_at;

	if (start->zone == NULL)
		return false;
	if (start->catch_up == 'c')
		after = Max(after, start->started_at);
	else if (start->catch_up == 's')
		after = Max(after, start->started_at - (missed ? SKIP_START_WITHIN : 0));
	return recurrence_next(start->anchor, &start->every, start->zone, after, next);
}

/*
 * Once a worker.  The server looks for a deadlock once in each wait, and the
 * one who makes it complete finds it.  A run looks again and again instead,
 * so that it finds a deadlock first whoever has begun to wait last.
 */
void
outcome_init(void)
{
	deadlock_check = RegisterTimeout(USER_TIMEOUT, CheckDeadLockAlert);
}

/* Locks the alarm; false if the run's outcome has nowhere to go. */
static bool
outcome_lock(Store *store, const RunStart *start, AlarmRow *alarm, TsReport *report)
{
	TM_Result	result = store_lock_alarm(store, start->id, alarm, LockWaitSkip);

	if (result == TM_WouldBlock)
	{
		enable_timeout_every(deadlock_check,
							 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DEADLOCK_CHECK),
							 DEADLOCK_CHECK);
		result = store_lock_alarm(store, start->id, alarm, LockWaitBlock);
		disable_timeout(deadlock_check, false);
	}

	report->id = start->id;
	if (result == TM_Deleted)
	{
		report->fate = TS_FATE_GONE;
		return false;
	}
	if (ROW_GET(Int64, alarm, alarm_revision) != start->revision)
	{
		report->fate = TS_FATE_LOOK;
		return false;
	}
	return true;
}

static text *
outcome_error_text(const char *message)
{
	int			length = strlen(message);

	if (length > MAX_ERROR_LENGTH)
		length = pg_mbcliplen(message, length, MAX_ERROR_LENGTH);
	return cstring_to_text_with_len(message, length);
}

static void
outcome_set_error(AlarmRow *alarm, const char *status, const char *sqlstate, const char *message)
{
	ROW_SET(Pointer, alarm, alarm_last_status, cstring_to_text(status));
	if (sqlstate != NULL)
		ROW_SET(Pointer, alarm, alarm_last_sqlstate, cstring_to_text(sqlstate));
	else
		ROW_SET_NULL(alarm, alarm_last_sqlstate);
	if (message != NULL)
		ROW_SET(Pointer, alarm, alarm_last_error, outcome_error_text(message));
	else
		ROW_SET_NULL(alarm, alarm_last_error);
}

static void
outcome_count_run(AlarmRow *alarm, const RunStart *start)
{
	ROW_SET(TimestampTz, alarm, alarm_previous_run_at, start->run_at);
	ROW_SET(TimestampTz, alarm, alarm_last_run_at, start->started_at);
	ROW_SET(Int64, alarm, alarm_run_count, ROW_GET(Int64, alarm, alarm_run_count) + 1);
}

/*
 * Writes an alarm whose outcome has been filled in: with the next time of a
 * recurring task, or as failed for good.
 */
static void
outcome_finish(Store *store, const RunStart *start, bool missed, AlarmRow *alarm,
			   TsReport *report)
{
	TimestampTz next;

	report->fate = TS_FATE_GONE;
	if (!start->recurring)
		ROW_SET(Bool, alarm, alarm_failed, true);
	else if (outcome_next(start, missed, &next))
	{
		ROW_SET(TimestampTz, alarm, alarm_run_at, next);
		if (ROW_ISNULL(alarm, alarm_paused_at))
		{
			report->fate = TS_FATE_NEXT;
			report->next_run_at = next;
		}
	}
	else
	{
		ROW_SET(Bool, alarm, alarm_failed, true);
		outcome_set_error(alarm, "failed", "22008",
						  start->zone == NULL ? "the task's time zone is not known to this server" :
						  "there is no next time within the range of timestamps");
	}
	ROW_SET(Int32, alarm, alarm_attempt, 0);
	store_update_alarm(store, alarm);
}

/* The run was too late: records that its time was missed. */
void
outcome_missed(Store *store, const RunStart *start, TsReport *report)
{
	AlarmRow	alarm;

	if (!outcome_lock(store, start, &alarm, report))
		return;
	outcome_set_error(&alarm, "missed", NULL, NULL);
	outcome_finish(store, start, true, &alarm, report);
}

/* The run has succeeded: a one-off task is done, a recurring one goes on. */
void
outcome_succeeded(Store *store, const RunStart *start, TsReport *report)
{
	AlarmRow	alarm;

	if (!outcome_lock(store, start, &alarm, report))
		return;
	if (!start->recurring)
	{
		TaskRow		task;

		store_delete_alarm(store, &alarm);
		if (store_get_task(store, start->id, &task))
			store_delete_task(store, &task);
		report->fate = TS_FATE_GONE;
		return;
	}
	outcome_count_run(&alarm, start);
	ROW_SET(Int32, &alarm, alarm_failures_in_row, 0);
	outcome_set_error(&alarm, "succeeded", NULL, NULL);
	outcome_finish(store, start, false, &alarm, report);
}

/* The run has failed: a one-off task has too, a recurring one goes on. */
void
outcome_failed(Store *store, const RunStart *start, int sqlerrcode, const char *message,
			   TsReport *report)
{
	AlarmRow	alarm;

	if (!outcome_lock(store, start, &alarm, report))
		return;
	outcome_count_run(&alarm, start);
	ROW_SET(Int32, &alarm, alarm_failures_in_row,
			ROW_GET(Int32, &alarm, alarm_failures_in_row) + 1);
	outcome_set_error(&alarm, "failed", unpack_sql_state(sqlerrcode), message);
	outcome_finish(store, start, false, &alarm, report);
}
