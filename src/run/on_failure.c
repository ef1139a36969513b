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

/* Longest kwargs (bytes) that are told, and how deep they may be nested. */
#define MAX_KWARGS_SIZE		(1024 * 1024)
#define MAX_KWARGS_DEPTH	1000

/* Return whether a task was scheduled because another has failed. */
static bool
on_failure_is_hook(const char *task_id)
{
	return strncmp(task_id, HOOK_PREFIX, strlen(HOOK_PREFIX)) == 0;
}

/*
 * Return whether the on_failure of a task is an alias.  The name of a function has its
 * schema, as it is stored; an alias with a dot is refused.
 */
bool
on_failure_is_alias(const char *name)
{
	return name[0] != '\0' && strchr(name, '.') == NULL;
}

/*
 * Return a name for the task that tells of another's failure: another for each number,
 * and the plain one for 0.  It is unique, and no longer than a name may be, by a hash.
 */
static char *
on_failure_task_id(const char *task_id, uint64 number)
{
	int			length = strlen(task_id);
	int			room = MAX_ID_LENGTH - strlen(HOOK_PREFIX);
	uint64		hash;

	if (number == 0 && pg_mbstrlen(task_id) <= room)
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
	if (ending == ENDING_FAILED && start->no_grid != NULL)
		return word_text(run_status_words, RUN_FAILED); /* its next time cannot
														 * be told */
	switch (run->status)
	{
		case RUN_SUCCEEDED:
			return run->recovered ? "recovered" : NULL;
		case RUN_CANCELLED:
		case RUN_SKIPPED:
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

/*
 * Add the kwargs of a task to a JSON object; null if they are too large, or nested too
 * deep, to be part of another one.
 */
static void
on_failure_add_kwargs(StringInfo json, Jsonb *kwargs)
{
	JsonbIterator *it = JsonbIteratorInit(&kwargs->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			depth = 0;
	bool		fits = VARSIZE(kwargs) <= MAX_KWARGS_SIZE;

	while (fits && (token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_OBJECT || token == WJB_BEGIN_ARRAY)
			fits = ++depth <= MAX_KWARGS_DEPTH;
		else if (token == WJB_END_OBJECT || token == WJB_END_ARRAY)
			depth--;
	}
	appendStringInfoString(json, ", \"task_kwargs\": ");
	if (fits)
		(void) JsonbToCString(json, &kwargs->root, VARSIZE(kwargs));
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
	const char *detail = run->error != NULL && start->no_grid == NULL ? run->error->detail : NULL;
	char		run_at[MAXDATELEN + 1];
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"attempt\": %d, \"failures_in_row\": %d",
					 start->attempt, ROW_GET(Int32, alarm, alarm_failures_in_row));
	on_failure_add_kwargs(&json, DatumGetJsonbP(ROW_DATUM(start->task, task_kwargs)));
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
	on_failure_add_string(&json, "detail", detail == NULL ? NULL :
						  text_to_cstring(failure_text(detail)));
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/* Return values like those of a failure, to find out whether a callback can take them. */
Jsonb *
on_failure_sample(void)
{
	static const char sample[] =
	"{\"task_id\": \"a\", \"group_id\": \"a\", \"owner\": \"a\", \"callback\": \"a\", "
	"\"task_kwargs\": {}, \"queue\": null, \"queue_key\": null, \"run_id\": 1, "
	"\"run_at\": \"2026-01-01T00:00:00+00:00\", \"attempt\": 1, \"status\": \"failed\", "
	"\"sqlstate\": \"22012\", \"message\": \"a\", \"detail\": null, \"failures_in_row\": 1}";

	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(sample)));
}

/* What a task that tells of a failure calls, and with what. */
typedef struct Hook
{
	const char *callback;
	bool		is_alias;		/* and nothing else */
	Jsonb	   *kwargs;
} Hook;

/* Fill in the row of a task that tells of a failure. */
static void
on_failure_fill(TaskRow *row, const RunStart *start, const Hook *hook, const char *task_id)
{
	Name		owner_name = palloc(sizeof(NameData));

	namestrcpy(owner_name, GetUserNameFromId(start->owner, false));
	ROW_SET(Name, row, task_owner_name, owner_name);
	ROW_SET(Bool, row, task_is_alias, hook->is_alias);
	ROW_SET(Pointer, row, task_task_id, cstring_to_text(task_id));
	ROW_SET(Pointer, row, task_callback, cstring_to_text(hook->callback));
	ROW_SET(Pointer, row, task_kwargs, hook->kwargs);
	ROW_SET(Pointer, row, task_run_type, cstring_to_text("once"));
	ROW_SET(Pointer, row, task_timezone, ROW_GET(TextPP, start->task, task_timezone));
	ROW_SET(Pointer, row, task_catch_up,
			cstring_to_text(word_text(catch_up_words, CATCH_UP_COALESCE)));
}

/*
 * Write one that is new.  Return false if there is one of that name after all, or somebody
 * is about to add or remove it.
 */
static bool
on_failure_insert(Store *store, TaskRow *row, Oid owner)
{
	TimestampTz now = GetCurrentTimestamp();
	AlarmRow	alarm;
	int64		id = store_new_id();

	ROW_SET(Int64, row, task_id, id);
	ROW_SET(ObjectId, row, task_owner, owner);
	ROW_SET(TimestampTz, row, task_created_at, now);
	if (!store_try_insert_task(store, row, false))
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

/* Schedule one of that name that is new.  Return whether that could be done. */
static bool
on_failure_add_new(Store *store, const RunStart *start, const Hook *hook, const char *task_id)
{
	TaskRow		row;

	memset(row.nulls, true, sizeof(row.nulls));
	memset(row.values, 0, sizeof(row.values));
	on_failure_fill(&row, start, hook, task_id);
	return on_failure_insert(store, &row, start->owner);
}

/*
 * Schedule a task that tells of a failure, in the place of one that still waits.  Where
 * others are changing those that there are, it gets a name that nobody can hold.
 */
static void
on_failure_add(Store *store, const RunStart *start, const Hook *hook)
{
	for (int number = 0; number < HOOK_NAMES; number++)
	{
		char	   *task_id = on_failure_task_id(start->task_id, number);
		TaskRow		row;
		AlarmRow	alarm;

		if (!store_find_task(store, start->owner, CStringGetTextDatum(task_id), &row))
		{
			if (on_failure_add_new(store, start, hook, task_id))
				return;
		}
		else if (store_lock_alarm(store, ROW_GET(Int64, &row, task_id), &alarm, LockWaitSkip) == TM_Ok &&
				 store_get_task(store, ROW_GET(Int64, &alarm, alarm_id), &row) &&
				 ROW_GET(ObjectId, &row, task_owner) == start->owner)
		{
			on_failure_fill(&row, start, hook, task_id);
			on_failure_replace(store, &row, &alarm);
			return;
		}
	}
	while (!on_failure_add_new(store, start, hook,
							   on_failure_task_id(start->task_id, HOOK_NAMES + store_new_id())))
		;
}

/*
 * Find the callback for a task's failures, and return whether there is one.  A task that
 * was given to another role during the run has the callback of that role by now, which
 * this one's is not to call.
 */
static bool
on_failure_find(Store *store, const RunStart *start, Hook *hook)
{
	TaskRow		now;
	const TaskRow *task = start->task;

	if (store_get_task(store, start->id, &now) &&
		ROW_GET(TimestampTz, &now, task_created_at) == start->created_at &&
		ROW_GET(ObjectId, &now, task_owner) == start->owner)
		task = &now;
	if (!ROW_ISNULL(task, task_on_failure))
	{
		hook->callback = TextDatumGetCString(ROW_DATUM(task, task_on_failure));
		hook->is_alias = on_failure_is_alias(hook->callback);
	}
	else
	{
		hook->callback = role_setting(start->owner, "taskshed.on_failure", ts_on_failure);
		hook->is_alias = false;
	}
	return hook->callback != NULL && hook->callback[0] != '\0';
}

/*
 * Do what follows from an end for the task's on_failure.  The alarm is as the end has
 * left it.
 */
void
on_failure_settle(Store *store, const AlarmRow *alarm, Ending ending, const RunEnd *run)
{
	const RunStart *start = run->start;
	const char *status = on_failure_status(ending, run, alarm);
	Hook		hook;

	if (status == NULL || on_failure_is_hook(start->task_id) ||
		!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(start->owner)))
		return;
	/* of a run that was lost, only the new owner's row is left */
	if (ROW_GET(ObjectId, start->task, task_owner) != start->owner)
		return;
	if (!on_failure_find(store, start, &hook))
		return;
	hook.kwargs = on_failure_kwargs(run, status, alarm);
	on_failure_add(store, start, &hook);
	CommandCounterIncrement();
}

/*
 * Find out what a run is to call, and with what, if its task tells of a failure: a
 * function, with what it has arguments for.  What the setting says may be an alias, if it
 * has no schema; that of a task is resolved already.
 */
void
on_failure_prepare(const char *task_id, Oid owner, char **callback, Jsonb **kwargs)
{
	char	   *target = NULL;
	Jsonb	   *picked;

	if (!on_failure_is_hook(task_id))
		return;
	if (on_failure_is_alias(*callback))
		target = alias_find(owner, *callback);
	if (target != NULL)
		*callback = target;
	picked = callback_pick(*callback, *kwargs);
	if (picked != NULL)
		*kwargs = picked;
}
