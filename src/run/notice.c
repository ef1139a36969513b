/*-------------------------------------------------------------------------
 *
 * notice.c
 *		Telling sessions that listen how a run has ended: NOTIFY.
 *
 * A notice is part of the transaction that writes the outcome, so it comes when that is
 * committed, and not if it is not.  The server has all commits with a notice go one
 * after the other, under a lock that is held until each is over, by whatever keeps it,
 * in any database: a standby that does not answer, say.  A run must not wait for that,
 * nor fail because the server's queue of notices is full.  So the lock is taken
 * beforehand, without waiting, and the queue is looked at; if it cannot be, the
 * outcome goes without a notice, and the view status says so.  Who must not miss one
 * uses on_failure.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_database.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "run/run.h"

/* A worker tries for so long (ms) to get the lock, each time after this long. */
#define NOTICE_PATIENCE		1000
#define NOTICE_PAUSE		10

/* No notice is added to a queue that is as full as that. */
#define NOTICE_FULL			0.9

/* A payload is shorter than this, in bytes. */
#define NOTICE_LENGTH		8000

static const char *const not_sent =
"a run has ended without its notice, since those of other sessions keep theirs waiting";

/* Could the last one not be sent?  Then the next is not waited for. */
static bool notice_is_stuck = false;

/* Take the lock that commits with notices take.  Return false if others keep it. */
static bool
notice_lock(void)
{
	int			tries = notice_is_stuck || ts_my_worker == NULL ? 0 : NOTICE_PATIENCE / NOTICE_PAUSE;
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, InvalidOid, 0);
	while (LockAcquire(&tag, AccessExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (tries-- <= 0)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, NOTICE_PAUSE,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	return true;
}

/* Return whether notices can be sent in this transaction, without waiting or failing. */
static bool
notice_is_possible(void)
{
	return notice_lock() &&
		DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) < NOTICE_FULL;
}

/* Say whether notices come, when that changes; another process may have said it last. */
static void
notice_tell(bool possible)
{
	TsDatabase *db = database_find(MyDatabaseId);

	notice_is_stuck = !possible;
	if (db != NULL && database_has_message(db, not_sent) == possible)
		database_set_message(db, possible ? NULL : not_sent);
}

/* Return whether a task wants its notices to tell the result. */
static bool
notice_has_result(const TaskRow *task)
{
	JsonbValue	name = {.type = jbvString};
	JsonbValue *value;

	if (ROW_ISNULL(task, task_options))
		return false;
	name.val.string.val = NOTIFY_RESULT;
	name.val.string.len = strlen(NOTIFY_RESULT);
	value = findJsonbValueFromContainer(&DatumGetJsonbP(ROW_DATUM(task, task_options))->root,
										JB_FOBJECT, &name);
	return value != NULL && value->type == jbvBool && value->val.boolean;
}

/* Add the result, if there is room for it. */
static void
notice_add_result(StringInfo json, const char *result)
{
	StringInfoData added;

	if (strlen(result) >= NOTICE_LENGTH)
		return;
	initStringInfo(&added);
	escape_json(&added, result);
	if (json->len + strlen(", \"result\": }") + added.len < NOTICE_LENGTH)
		appendStringInfo(json, ", \"result\": %s", added.data);
}

/* Return what a notice says; sqlstate may be NULL. */
static char *
notice_payload(const RunEnd *run, RunStatus status, const char *sqlstate)
{
	const RunStart *start = run->start;
	char		run_at[MAXDATELEN + 1];
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"task_id\": ");
	escape_json(&json, start->task_id);
	appendStringInfoString(&json, ", \"status\": ");
	escape_json(&json, word_text(run_status_words, status));
	JsonEncodeDateTime(run_at, TimestampTzGetDatum(start->scheduled_at), TIMESTAMPTZOID, NULL);
	appendStringInfo(&json, ", \"run_at\": \"%s\", \"attempt\": %d", run_at, start->attempt);
	if (sqlstate != NULL)
		appendStringInfo(&json, ", \"sqlstate\": \"%s\"", sqlstate);
	if (run->result != NULL && notice_has_result(start->task))
		notice_add_result(&json, run->result);
	appendStringInfoChar(&json, '}');
	Assert(json.len < NOTICE_LENGTH);
	return json.data;
}

/*
 * Return whether a run has failed, so that those hear of it who want to hear of
 * failures: not one that was cancelled, nor a time that was left out.
 */
static bool
notice_is_failure(const RunStart *start, RunStatus status)
{
	switch (status)
	{
		case RUN_FAILED:
		case RUN_TIMEOUT:
		case RUN_INTERRUPTED:
			return true;
		case RUN_MISSED:
			return !ROW_ISNULL(start->task, task_start_within);
		default:
			return false;
	}
}

/* Return whether there is such a channel: a setting's may not have been checked. */
static bool
notice_is_channel(const char *channel)
{
	return channel != NULL && channel[0] != '\0' && strlen(channel) < NAMEDATALEN;
}

/*
 * Do what follows from the end of a run for those who listen.  The alarm is as the end
 * has left it; NULL if nobody needs that, since the run has succeeded.
 */
void
notice_settle(const AlarmRow *alarm, Ending ending, const RunEnd *run)
{
	const RunStart *start = run->start;
	RunStatus	status = run->status;
	const char *channel = NULL;
	const char *failures = NULL;
	const char *sqlstate = run->error != NULL ? unpack_sql_state(run->error->sqlerrcode) : NULL;
	char	   *payload;
	bool		possible;

	if (ending == ENDING_AGAIN)
		return;
	if (ending == ENDING_FAILED && start->no_grid != NULL)
	{
		/* whatever the run was, its next time cannot be told */
		status = RUN_FAILED;
		if (!ROW_ISNULL(alarm, alarm_last_sqlstate))
			sqlstate = TextDatumGetCString(ROW_DATUM(alarm, alarm_last_sqlstate));
	}
	if (!ROW_ISNULL(start->task, task_notify))
		channel = TextDatumGetCString(ROW_DATUM(start->task, task_notify));
	if (notice_is_failure(start, status))
		failures = role_setting(start->owner, "taskshed.notify_failures", ts_notify_failures);
	if (!notice_is_channel(channel))
		channel = NULL;
	if (!notice_is_channel(failures) || (channel != NULL && strcmp(failures, channel) == 0))
		failures = NULL;
	if (channel == NULL && failures == NULL)
		return;

	possible = notice_is_possible();
	notice_tell(possible);
	if (!possible)
		return;
	payload = notice_payload(run, status, sqlstate);
	if (channel != NULL)
		Async_Notify(channel, payload);
	if (failures != NULL)
		Async_Notify(failures, payload);
}
