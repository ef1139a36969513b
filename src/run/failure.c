/*-------------------------------------------------------------------------
 *
 * failure.c
 *		A failed run: what is known of it, and its line in the log.
 *
 * A task that fails over and over does not fill the log: of failures that follow
 * each other closely those at powers of two are logged.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* Failures follow each other closely if this (us) is between them, or less. */
#define CLOSE_FAILURES		USECS_PER_MINUTE

/* Longest error message kept in a task's row, in bytes. */
#define MAX_ERROR_LENGTH	2048

/* Longest text of an error in a line of the log, in bytes. */
#define MAX_LINE_LENGTH		2048

/* Return a message as it is kept in a task's row, cut if it is too long. */
text *
failure_text(const char *message)
{
	int			length = strlen(message);

	if (length > MAX_ERROR_LENGTH)
		length = pg_mbcliplen(message, length, MAX_ERROR_LENGTH);
	return cstring_to_text_with_len(message, length);
}

/* Return a name or message as one that does not break a line of the log, or fill it. */
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
 * Write one line about a failed run, without its arguments.  It is for the server log only:
 * who removes a task in a session is not told of each one that fails by that.
 */
void
failure_log_line(const RunStart *start, const Failure *failure, const char *detail)
{
	char	   *owner = GetUserNameFromId(start->owner, true);
	char	   *database = get_database_name(MyDatabaseId);
	int			client = client_min_messages;

	if (ts_log_failures == 0)
		return;
	PG_TRY();
	{
		client_min_messages = ERROR;
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
	PG_FINALLY();
	{
		client_min_messages = client;
	}
	PG_END_TRY();
}

/* Return the number of a failure among those that follow each other closely, from 1. */
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
 * Count a failure that no worker could record, and return it, with no value of
 * kwargs in its message.  A task that names an alias is logged with that: what it
 * stood for during the run is not known.
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
