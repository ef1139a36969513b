/*-------------------------------------------------------------------------
 *
 * run_start.c
 *		What is known of a task when its run begins.
 *
 * The rows may have been written by hand, past all checks.  A value that makes
 * no sense counts as not given, and nothing here raises an error: the scheduler
 * comes this way too, for runs that have lost their workers.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* What tasks have that were not given other delays, in microseconds. */
#define DEFAULT_RETRY_DELAY		(10 * USECS_PER_SEC)
#define DEFAULT_RETRY_BACKOFF	2.0
#define DEFAULT_RETRY_MAX_DELAY USECS_PER_HOUR

/*
 * No delay or limit counts for more than this, in microseconds: 100,000 years,
 * which can be added to the time of day.
 */
#define MAX_DURATION		(INT64CONST(36525000) * USECS_PER_DAY)

/*
 * Return a task's interval in microseconds, or what is to be taken if it has none,
 * or one that is negative.
 */
static int64
run_start_usecs(const TaskRow *task, int attnum, int64 otherwise)
{
	const Interval *interval;
	double		usecs;

	if (task->nulls[attnum - 1])
		return otherwise;
	interval = DatumGetIntervalP(task->values[attnum - 1]);
	usecs = ((double) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY +
		(double) interval->time;
	if (usecs < 0)
		return otherwise;
	return (int64) Min(usecs, (double) MAX_DURATION);
}

/* Find out when a task recurs.  Return NULL, or why that cannot be told. */
static const char *
run_start_calendar(RunStart *start, const TaskRow *task, const AlarmRow *alarm)
{
	Calendar   *calendar = &start->calendar;
	bool		has_every = !ROW_ISNULL(task, task_every);

	memset(calendar, 0, sizeof(Calendar));
	calendar->has_schedule = !ROW_ISNULL(task, task_schedule);
	calendar->zone = pg_tzset(TextDatumGetCString(ROW_DATUM(task, task_timezone)));
	calendar->anchor = ROW_GET(TimestampTz, alarm, alarm_anchor);
	start->recurring = task_is_recurring(task);
	start->lasting = task_is_lasting(task);
	start->follows = ROW_IS_TRUE(alarm, alarm_follows);
	start->followed = ROW_IS_TRUE(alarm, alarm_followed);

	if (calendar->zone == NULL)
		return "the task's time zone is not known to this server";
	if (has_every && calendar->has_schedule)
		return "the task has both an interval and a schedule";
	if (calendar->has_schedule)
	{
		CronProblem problem;

		if (!cron_parse(TextDatumGetCString(ROW_DATUM(task, task_schedule)),
						&calendar->schedule, &problem))
			return problem.message;
	}
	if (has_every)
	{
		calendar->every = *ROW_GET(IntervalP, task, task_every);
		if (!every_moves_forward(&calendar->every))
			return "the task's interval does not move time forward";
	}
	return NULL;
}

/* Take from a task's row what limits its runs, and what has them tried again. */
void
run_start_read_limits(RunStart *start, const TaskRow *task)
{
	start->catch_up = word_value(catch_up_words, ROW_DATUM(task, task_catch_up), CATCH_UP_COALESCE);
	start->start_within = run_start_usecs(task, Anum_task_start_within,
										  start->catch_up == CATCH_UP_SKIP ? SKIP_START_WITHIN : -1);
	start->until = ROW_ISNULL(task, task_until) ? DT_NOEND :
		ROW_GET(TimestampTz, task, task_until);
	start->max_runs = ROW_ISNULL(task, task_max_runs) ? 0 : ROW_GET(Int32, task, task_max_runs);
	start->max_attempts = ROW_ISNULL(task, task_max_attempts) ? 1 :
		ROW_GET(Int32, task, task_max_attempts);
	if (start->max_attempts < 0)
		start->max_attempts = 1;
	start->retry_delay = run_start_usecs(task, Anum_task_retry_delay, DEFAULT_RETRY_DELAY);
	start->retry_backoff = ROW_ISNULL(task, task_retry_backoff) ? DEFAULT_RETRY_BACKOFF :
		ROW_GET(Float8, task, task_retry_backoff);
	if (!(start->retry_backoff >= 1))	/* NaN neither */
		start->retry_backoff = DEFAULT_RETRY_BACKOFF;
	start->retry_max_delay = run_start_usecs(task, Anum_task_retry_max_delay,
											 Max(DEFAULT_RETRY_MAX_DELAY, start->retry_delay));
}

/*
 * Take from a task's rows what a run needs to know of them at its end, into the
 * current memory context.  The task's row stays where it is, for what only some
 * runs need of it.
 */
void
run_start_read(RunStart *start, const TaskRow *task, const AlarmRow *alarm, TimestampTz now)
{
	/* which run this is */
	start->id = ROW_GET(Int64, alarm, alarm_id);
	start->created_at = ROW_GET(TimestampTz, task, task_created_at);
	start->revision = ROW_GET(Int64, alarm, alarm_revision);
	start->scheduled_at = ROW_GET(TimestampTz, alarm, alarm_scheduled_at);
	start->attempt = ROW_GET(Int32, alarm, alarm_attempt) + 1;
	start->restarts = ROW_ISNULL(alarm, alarm_restarts) ? 0 : ROW_GET(Int32, alarm, alarm_restarts);
	start->late_from = ROW_ISNULL(alarm, alarm_late_from) ? DT_NOBEGIN :
		ROW_GET(TimestampTz, alarm, alarm_late_from);
	if (!ROW_ISNULL(alarm, alarm_begun_at))
		start->late_from = DT_NOEND;
	start->previous_run_at = ROW_ISNULL(alarm, alarm_previous_run_at) ? DT_NOBEGIN :
		ROW_GET(TimestampTz, alarm, alarm_previous_run_at);
	start->started_at = now;
	start->worker_pid = MyProcPid;
	start->asked_at = ROW_ISNULL(alarm, alarm_asked_at) ? DT_NOBEGIN :
		ROW_GET(TimestampTz, alarm, alarm_asked_at);
	start->task = task;
	start->impatient = false;
	start->tids.known = false;
	ItemPointerSetInvalid(&start->tids.task);

	/* the alarm's: its task may have been given away before it was read */
	start->owner = ROW_GET(ObjectId, alarm, alarm_owner);
	start->owner_name = *ROW_GET(Name, task, task_owner_name);
	start->task_id = TextDatumGetCString(ROW_DATUM(task, task_task_id));
	start->group_id = ROW_ISNULL(task, task_group_id) ? NULL :
		TextDatumGetCString(ROW_DATUM(task, task_group_id));

	/* how the task is to be run */
	start->callback = TextDatumGetCString(ROW_DATUM(task, task_callback));
	start->no_grid = run_start_calendar(start, task, alarm);
	run_start_read_limits(start, task);
	start->timeout = run_start_usecs(task, Anum_task_timeout, (int64) ts_timeout * 1000);
	start->failing = (ROW_GET(Int32, alarm, alarm_failures_in_row) > 0);
	start->extra = !ROW_ISNULL(alarm, alarm_resume_at);
	if (start->extra)
		start->scheduled_at = ROW_GET(TimestampTz, alarm, alarm_run_at);

	/* behind a last run, what has not begun and cannot be late */
	start->by_hand = start->extra ||
		(start->late_from == DT_NOEND && start->attempt == 1 && start->restarts == 0 &&
		 ROW_ISNULL(alarm, alarm_begun_at));
	start->history = ROW_ISNULL(task, task_history) ? ts_history :
		word_value(history_words, ROW_DATUM(task, task_history), HISTORY_ALL);
}

/*
 * Return whether a run may share a transaction, as far as its task says: not one that
 * has begun before and was cut off or has failed, nor one for which it matters when
 * it begins, since it may have to begin again.  Nor one whose end others are told of or
 * wait for, who are not to wait for the rest of the transaction, or that has settings of
 * its own.
 */
bool
run_start_may_share(const RunStart *start)
{
	return start->attempt == 1 && start->restarts == 0 && !start->by_hand &&
		start->start_within < 0 && start->late_from != DT_NOEND &&
		ROW_ISNULL(start->task, task_notify) && ROW_ISNULL(start->task, task_settings) &&
		!start->failing && !start->followed && !start->lasting;
}
