/*-------------------------------------------------------------------------
 *
 * failure.c
 *		What follows a failed run: a line in the log, and when it is tried again.
 *
 * A run is tried again as often as its task says.  What fails because the server
 * has no disk space, memory or connections left is no fault of the task: it is
 * tried again without being counted, for a while.
 *
 * A task that fails over and over is held back a little and does not fill the
 * log: of failures that follow each other closely those at powers of two are
 * logged.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "commands/dbcommands.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* The part of a delay by which it may be shorter. */
#define RETRY_JITTER		0.1

/* From this many failed attempts on, the delay is this (us) at least. */
#define MANY_ATTEMPTS		10
#define MANY_ATTEMPTS_DELAY	USECS_PER_SEC

/* For so long (us) what fails by a shortage is not counted. */
#define SHORTAGE_PATIENCE	USECS_PER_HOUR

/* The longest delay (us) then; the first is one second. */
#define SHORTAGE_MAX_DELAY	(64 * USECS_PER_SEC)

/* Failures follow each other closely if this (us) is between them, or less. */
#define CLOSE_FAILURES		USECS_PER_MINUTE

/* Longest text of an error in a line of the log, in bytes. */
#define MAX_LINE_LENGTH		2048

/* A name or message that does not break a line of the log, or fill it. */
char *
failure_one_line(const char *text)
{
	char	   *line = pnstrdup(text, pg_mbcliplen(text, strlen(text), MAX_LINE_LENGTH));

	for (char *p = line; *p != '\0'; p++)
	{
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	}
	return line;
}

/*
 * Does an error say that the server is short of something?  Not if the callback
 * says so itself, with RAISE or plpy.error; what a language has caught and passes
 * on is the server's word.  And not a limit that somebody has set (53400).
 */
bool
failure_is_shortage(const ErrorData *error)
{
	if (error->sqlerrcode != ERRCODE_DISK_FULL && error->sqlerrcode != ERRCODE_OUT_OF_MEMORY &&
		error->sqlerrcode != ERRCODE_TOO_MANY_CONNECTIONS)
		return false;
	return error->funcname == NULL ||
		(strcmp(error->funcname, "exec_stmt_raise") != 0 && strcmp(error->funcname, "PLy_output") != 0);
}

/* Write one line about a failed run, without its arguments. */
static void
failure_log_line(const RunStart *start, const Failure *failure, const char *detail)
{
	char	   *owner = GetUserNameFromId(start->owner, true);
	char	   *database = get_database_name(MyDatabaseId);

	if (ts_log_failures == 0)
		return;
	ereport(ts_log_failures,
			(errcode(failure->error->sqlerrcode),
			 errmsg("task \"%s\" of role \"%s\" in database \"%s\" failed in %s: %s: %s",
					failure_one_line(start->task_id),
					failure_one_line(owner != NULL ? owner : NameStr(start->owner_name)),
					database != NULL ? failure_one_line(database) : "?",
					failure_one_line(failure->callback),
					unpack_sql_state(failure->error->sqlerrcode),
					failure_one_line(failure->message)),
			 detail != NULL ? errdetail_internal("%s", detail) : 0,
			 errhidestmt(true), errhidecontext(true)));
}

/* The number of a failure among those that follow each other closely, from 1. */
static int
failure_count(const RunStart *start, const AlarmRow *alarm)
{
	RunStatus	status;

	if (ROW_ISNULL(alarm, alarm_last_run_at) || ROW_ISNULL(alarm, alarm_last_status) ||
		start->started_at - ROW_GET(TimestampTz, alarm, alarm_last_run_at) > CLOSE_FAILURES)
		return 1;
	status = word_value(run_status_words, ROW_DATUM(alarm, alarm_last_status), RUN_NONE);
	if (status != RUN_FAILED && status != RUN_TIMEOUT)
		return 1;
	return ROW_ISNULL(alarm, alarm_close_failures) ? 2 :
		ROW_GET(Int32, alarm, alarm_close_failures) + 1;
}

/*
 * Log that a run has failed, unless that was said often enough.  The alarm is
 * locked and as the run before has left it; the count goes into it.  NULL if
 * there is none any more.
 */
void
failure_log(const RunStart *start, const Failure *failure, AlarmRow *alarm)
{
	char	   *detail = NULL;
	int			count = 1;

	if (alarm != NULL)
	{
		count = failure_count(start, alarm);
		ROW_SET(Int32, alarm, alarm_close_failures, count);
	}
	if ((count & (count - 1)) != 0)
		return;
	if (count > 1)
		detail = psprintf("It has failed %d times in a row, each within a minute of the time before.",
						  count);
	failure_log_line(start, failure, detail);
}

/*
 * If a run has failed by a shortage: when it is tried again, without being
 * counted.  False if it has not, if that has gone on for too long, and for a run by
 * hand, which would keep those of the schedule waiting.  Since when it
 * goes on, is kept in the alarm; the delays follow from that: 1, 2, 4 ... 64
 * seconds.
 */
bool
failure_outlast_shortage(const RunStart *start, const Failure *failure, AlarmRow *alarm,
						 TimestampTz *retry_at)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		delay = USECS_PER_SEC;
	int64		lasted;

	if (!failure_is_shortage(failure->error) || start->extra)
	{
		ROW_SET_NULL(alarm, alarm_shortage_since);
		return false;
	}
	if (ROW_ISNULL(alarm, alarm_shortage_since))
	{
		ROW_SET(TimestampTz, alarm, alarm_shortage_since, now);
		failure_log_line(start, failure,
						 "It is tried again for an hour without being counted, after 1, 2, 4 ... 64 seconds.");
	}
	lasted = now - ROW_GET(TimestampTz, alarm, alarm_shortage_since);
	if (lasted >= SHORTAGE_PATIENCE)
		return false;

	/* the delays so far come to one second less than the next */
	while (delay < SHORTAGE_MAX_DELAY && lasted + USECS_PER_SEC >= 2 * delay)
		delay *= 2;
	*retry_at = now + delay;
	return true;
}

/*
 * When a failed run is to be tried again; false if it is not.  The delay
 * varies a little, so that tasks that failed together do not come back
 * together.  A recurring task's attempts end before its next time.
 */
bool
failure_retry_at(const RunStart *start, TimestampTz *retry_at)
{
	double		delay;
	TimestampTz next;

	if (start->max_attempts > 0 && start->attempt >= start->max_attempts)
		return false;
	if (start->retry_delay == 0)
		delay = 0;				/* 0 times infinity, after many attempts */
	else
		delay = Min((double) start->retry_delay * pow(start->retry_backoff, start->attempt - 1),
					(double) start->retry_max_delay);
	delay *= 1 - RETRY_JITTER * pg_prng_double(&pg_global_prng_state);
	if (start->attempt >= MANY_ATTEMPTS)
		delay = Max(delay, (double) MANY_ATTEMPTS_DELAY);
	*retry_at = GetCurrentTimestamp() + (int64) delay;
	if (!start->recurring || start->no_grid != NULL)
		return true;

	/* one that is behind has until the first time that is still to come */
	return !calendar_next(&start->calendar, Max(start->scheduled_at, start->started_at), &next) ||
		*retry_at < next;
}

/*
 * A failure that no worker could record, with no value of kwargs in its message.
 * A task that names an alias is logged with that: what it stood for during the
 * run is not known.
 */
Failure
failure_found(const RunStart *start, RunStatus status, const ErrorData *error)
{
	TsDatabase *db = database_find(MyDatabaseId);
	Failure		failure = {status, error, start->callback, error->message};

	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		db->counts.runs_failed++;
		db->counts.last_failure_at = GetCurrentTimestamp();
		SpinLockRelease(&db->mutex);
	}
	return failure;
}
