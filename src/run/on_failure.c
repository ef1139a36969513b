/*-------------------------------------------------------------------------
 *
 * on_failure.c
 *		The tasks that are scheduled because another has failed.
 *
 * A task can name a callback for that, or its owner for all tasks that do not, with
 * taskshed.on_failure.  Here it becomes a task of the same owner, due at once, in the
 * transaction that records the failure: both are there, or neither.
 *
 * The task is called on_failure/ and the name of the one that has failed, so one that
 * still waits is replaced: many failures are one alert, which tells of the last.  Its
 * row is written here like that of any other, but nothing is looked up and nobody is
 * waited for: what cannot be called fails as a task of its own, and where somebody is
 * just changing the one that is there, another gets a name beside it.  What it is
 * given is settled when it runs, by the arguments that its callback has by then.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* So many names are tried, one after the other, for as many tasks that others hold. */
#define HOOK_NAMES		4

/* Return whether a task was scheduled because another has failed. */
bool
on_failure_is_hook(const char *task_id)
{
	return strncmp(task_id, HOOK_PREFIX, strlen(HOOK_PREFIX)) == 0;
}

/*
 * Return the name of the task that tells of another's failure: the first, second and
 * so on.  It is unique, and no longer than a name may be, by a hash.
 */
static char *
on_failure_task_id(const char *task_id, int number)
{
	int			length = strlen(task_id);
	int			room = MAX_ID_LENGTH - strlen(HOOK_PREFIX);
	uint64		hash;

	if (number == 1 && pg_mbstrlen(task_id) <= room)
		return psprintf("%s%s", HOOK_PREFIX, task_id);
	hash = DatumGetUInt64(hash_any_extended((const unsigned char *) task_id, length, number));
	length = pg_mbcharcliplen(task_id, length, room - 17);
	return psprintf("%s%.*s/%08x%08x", HOOK_PREFIX, length, task_id,
					(uint32) (hash >> 32), (uint32) hash);
}

/* Return whether it is time to say that a task fails again: at each power of two. */
static bool
on_failure_is_time(const AlarmRow *alarm)
{
	int			failures = ROW_GET(Int32, alarm, alarm_failures_in_row);

	return (failures & (failures - 1)) == 0;
}

/*
 * Return how a run has ended, if that is a failure for good or the end of some, in the
 * word for it; else NULL.
 */
static const char *
on_failure_status(Ending ending, const RunEnd *run, const AlarmRow *alarm)
{
	const RunStart *start = run->start;

	if (ending == ENDING_AGAIN)
		return NULL;
	switch (run->status)
	{
		case RUN_SUCCEEDED:
			/* (its next time cannot be told) */
			if (ending == ENDING_FAILED)
				return word_text(run_status_words, RUN_FAILED);
			return run->recovered ? "recovered" : NULL;
		case RUN_CANCELLED:
			return NULL;
		case RUN_MISSED:
			if (ROW_ISNULL(start->task, task_start_within))
				return NULL;
			break;
		default:
			if (start->recurring && !start->extra && ending != ENDING_FAILED && !run->paused &&
				!on_failure_is_time(alarm))
				return NULL;
			break;
	}
	return word_text(run_status_words, run->status);
}

/* Add a value to a JSON object, as a string; NULL is null. */
static void
on_failure_add_string(StringInfo json, const char *key, const char *value)
{
	appendStringInfo(json, ", \"%s\": ", key);
	if (value != NULL)
		escape_json(json, value);
	else
		appendStringInfoString(json, "null");
}

/* Return a column of an alarm as a C string, or NULL. */
static char *
on_failure_text(const AlarmRow *alarm, int attnum)
{
	return alarm->nulls[attnum - 1] ? NULL : TextDatumGetCString(alarm->values[attnum - 1]);
}

/* Return all that can be told of a failure, as kwargs. */
static Jsonb *
on_failure_kwargs(const RunEnd *run, const char *status, const AlarmRow *alarm)
{
	const RunStart *start = run->start;
	Jsonb	   *task_kwargs = DatumGetJsonbP(ROW_DATUM(start->task, task_kwargs));
	char		run_at[MAXDATELEN + 1];
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"attempt\": %d, \"failures_in_row\": %d, \"task_kwargs\": %s",
					 start->attempt, ROW_GET(Int32, alarm, alarm_failures_in_row),
					 JsonbToCString(NULL, &task_kwargs->root, VARSIZE(task_kwargs)));
	if (run->run_id != 0)
		appendStringInfo(&json, ", \"run_id\": " INT64_FORMAT, run->run_id);
	else
		on_failure_add_string(&json, "run_id", NULL);
	JsonEncodeDateTime(run_at, TimestampTzGetDatum(start->scheduled_at), TIMESTAMPTZOID, NULL);
	on_failure_add_string(&json, "task_id", start->task_id);
	on_failure_add_string(&json, "group_id", start->group_id);
	on_failure_add_string(&json, "owner", NameStr(start->owner_name));
	on_failure_add_string(&json, "callback", start->callback);
	on_failure_add_string(&json, "queue", NULL);
	on_failure_add_string(&json, "queue_key", NULL);
	on_failure_add_string(&json, "run_at", run_at);
	on_failure_add_string(&json, "status", status);
	on_failure_add_string(&json, "sqlstate", on_failure_text(alarm, Anum_alarm_last_sqlstate));
	on_failure_add_string(&json, "message", on_failure_text(alarm, Anum_alarm_last_error));
	on_failure_add_string(&json, "detail", run->error != NULL ? run->error->detail : NULL);
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/* Return values like those of a failure, to find out whether a callback can take them. */
Jsonb *
on_failure_sample(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(
																		"{\"task_id\": \"a\", \"group_id\": \"a\", \"owner\": \"a\", \"callback\": \"a\", \"task_kwargs\": {}, "
																		"\"queue\": null, \"queue_key\": null, \"run_id\": 1, \"run_at\": \"2026-01-01T00:00:00+00:00\", "
																		"\"attempt\": 1, \"status\": \"failed\", \"sqlstate\": \"22012\", \"message\": \"a\", "
																		"\"detail\": null, \"failures_in_row\": 1}")));
}

/* Fill in the row of a task that tells of a failure. */
static void
on_failure_fill(TaskRow *row, const RunStart *start, const char *callback, const char *task_id,
				Jsonb *kwargs)
{
	Name		owner_name = palloc(sizeof(NameData));

	*owner_name = start->owner_name;
	ROW_SET(Name, row, task_owner_name, owner_name);
	ROW_SET(Bool, row, task_is_alias, false);
	ROW_SET(Pointer, row, task_task_id, cstring_to_text(task_id));
	ROW_SET(Pointer, row, task_callback, cstring_to_text(callback));
	ROW_SET(Pointer, row, task_kwargs, kwargs);
	ROW_SET(Pointer, row, task_run_type, cstring_to_text("once"));
	ROW_SET(Pointer, row, task_timezone, ROW_GET(TextPP, start->task, task_timezone));
	ROW_SET(Pointer, row, task_catch_up,
			cstring_to_text(word_text(catch_up_words, CATCH_UP_COALESCE)));
}

/* Write one that is new.  Return false if somebody else has just added one of that name. */
static bool
on_failure_insert(Store *store, TaskRow *row, Oid owner)
{
	TimestampTz now = GetCurrentTimestamp();
	AlarmRow	alarm;
	int64		id = store_new_id();

	ROW_SET(Int64, row, task_id, id);
	ROW_SET(ObjectId, row, task_owner, owner);
	ROW_SET(TimestampTz, row, task_created_at, now);
	if (!store_try_insert_task(store, row))
		return false;
	alarm_begin(&alarm, id, owner, now, now);
	store_insert_alarm(store, &alarm);
	notes_add(now, id, owner);
	max_tasks_note(owner);
	return true;
}

/*
 * Have one that is there tell of this failure, and run.  If somebody has paused it, that
 * stays.  If it is just running, it runs again.
 */
static void
on_failure_replace(Store *store, TaskRow *row, AlarmRow *alarm)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		id = ROW_GET(Int64, row, task_id);

	store_update_task(store, row);
	ROW_SET(TimestampTz, alarm, alarm_run_at, now);
	ROW_SET(TimestampTz, alarm, alarm_scheduled_at, now);
	ROW_SET(TimestampTz, alarm, alarm_anchor, now);
	ROW_SET_NULL(alarm, alarm_resume_at);
	ROW_SET_NULL(alarm, alarm_failed_at);
	alarm_raise_revision(alarm);
	alarm_count_anew(alarm);
	ROW_SET(Int64, alarm, alarm_run_count, slot_is_running(id) ? -1 : 0);
	ROW_SET(Int32, alarm, alarm_failures_in_row, 0);
	store_update_alarm(store, alarm);
	notes_add(now, id, ROW_GET(ObjectId, row, task_owner));
}

/* Schedule a task that tells of a failure, in the place of one that still waits. */
static void
on_failure_add(Store *store, const RunStart *start, const char *callback, Jsonb *kwargs)
{
	for (int number = 1; number <= HOOK_NAMES; number++)
	{
		char	   *task_id = on_failure_task_id(start->task_id, number);
		TaskRow		row;
		AlarmRow	alarm;

		if (!store_find_task(store, start->owner, CStringGetTextDatum(task_id), &row))
		{
			memset(row.nulls, true, sizeof(row.nulls));
			memset(row.values, 0, sizeof(row.values));
			on_failure_fill(&row, start, callback, task_id, kwargs);
			if (on_failure_insert(store, &row, start->owner))
				return;
		}
		else if (store_lock_alarm(store, ROW_GET(Int64, &row, task_id), &alarm, LockWaitSkip) == TM_Ok &&
				 store_get_task(store, ROW_GET(Int64, &alarm, alarm_id), &row) &&
				 ROW_GET(ObjectId, &row, task_owner) == start->owner)
		{
			on_failure_fill(&row, start, callback, task_id, kwargs);
			on_failure_replace(store, &row, &alarm);
			return;
		}
	}
	ereport(LOG,
			(errmsg("no task could be added that tells of a failure of task \"%s\": others hold those that there are",
					failure_one_line(start->task_id))));
}

/* Return the callback for a task's failures, or NULL if there is none. */
static const char *
on_failure_callback(Store *store, const RunStart *start)
{
	TaskRow		now;
	const TaskRow *task = start->task;
	const char *callback;

	/* it may have been changed during the run */
	if (store_get_task(store, start->id, &now) &&
		ROW_GET(TimestampTz, &now, task_created_at) == start->created_at)
		task = &now;
	callback = ROW_ISNULL(task, task_on_failure) ?
		role_setting(start->owner, "taskshed.on_failure", ts_on_failure) :
		TextDatumGetCString(ROW_DATUM(task, task_on_failure));
	return callback != NULL && callback[0] != '\0' ? callback : NULL;
}

/*
 * Do what follows from an end for the task's on_failure.  The alarm is as the end has
 * left it.
 */
void
on_failure_settle(Store *store, const AlarmRow *alarm, Ending ending, const RunEnd *run)
{
	const char *status = on_failure_status(ending, run, alarm);
	const char *callback;

	if (status == NULL || on_failure_is_hook(run->start->task_id) ||
		!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(run->start->owner)))
		return;
	callback = on_failure_callback(store, run->start);
	if (callback == NULL)
		return;
	on_failure_add(store, run->start, callback, on_failure_kwargs(run, status, alarm));
	CommandCounterIncrement();
}

/*
 * Find out what a run of such a task is to call, and with what: an alias, or else a
 * function, with what it has arguments for.
 */
void
on_failure_prepare(const RunStart *start, char **callback, Jsonb **kwargs)
{
	char	   *target = alias_find(start->owner, start->callback);
	Jsonb	   *picked;

	if (target != NULL)
		*callback = target;
	picked = callback_pick(*callback, *kwargs);
	if (picked != NULL)
		*kwargs = picked;
}
