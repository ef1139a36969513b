/*-------------------------------------------------------------------------
 *
 * api_update.c
 *		update_tasks: changing some points of tasks and leaving all others.
 *
 * What a task's row says is turned back into the parameters of add_task; those
 * that are given are put in their places; and what comes of it is checked as
 * if the task were added like that.
 *
 * A run in progress goes on and is counted.  Only new times raise the alarm's
 * revision, for of all that can be changed they are what a run's end would
 * write as well.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api/api.h"

/* A call of update_tasks. */
typedef struct Update
{
	Jsonb	   *changes;
	SpecReader	reader;
	bool		given[ADD_NPARAMS]; /* the keys of changes */
	Datum		values[ADD_NPARAMS];	/* and their values */
	bool		nulls[ADD_NPARAMS];
	pg_tz	   *read_in;		/* the zone in which these were read */
	TimestampTz now;
	MemoryContext context;		/* holds the values */
	MemoryContext scratch;		/* for one task */
} Update;

#define UPDATE_JOINS "taskshed.add_task() replaces a task by one that runs after other tasks, or after none."

/* Refuse the keys that say which task is meant, and what makes it another one: 22023. */
static void
update_check_keys(const Update *update)
{
	static const struct
	{
		int			param;
		const char *name;
		const char *hint;
	}			refused[] =

	{
		{ADD_CALLBACK, "callback", "taskshed.add_task() replaces a task by one with another callback."},
		{ADD_TASK_ID, "task_id", "The parameters task_ids and group_id say which tasks are meant."},
		{ADD_OWNER, "owner", "The parameter owner says whose tasks are meant; taskshed.set_owner() gives them to another role."},
		{ADD_REPLACE_EXISTING, "replace_existing", "It is a parameter of taskshed.add_task() only."},
		{ADD_AFTER, "after", UPDATE_JOINS},
		{ADD_AFTER_GROUP, "after_group", UPDATE_JOINS},
		{ADD_AFTER_STATUS, "after_status", UPDATE_JOINS},
		{ADD_BEFORE, "before", UPDATE_JOINS}
	};

	for (int i = 0; i < lengthof(refused); i++)
	{
		if (update->given[refused[i].param])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key \"%s\" cannot be changed", refused[i].name),
					 errhint("%s", refused[i].hint)));
	}
	if (update->given[ADD_RUN_AT] && update->nulls[ADD_RUN_AT])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run_at must not be null"),
				 errhint("Leave it out and tasks keep their times.")));
}

/* Return whether anything is to be changed. */
static bool
update_has_changes(const Update *update)
{
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		if (update->given[i] && i != ADD_VALIDATE)
			return true;
	}
	return false;
}

/* Read the values as they are to a task in that time zone. */
static void
update_read(Update *update, pg_tz *zone)
{
	MemoryContext old;

	if (update->read_in == zone ||
		(update->read_in != NULL && !spec_has_times(update->nulls)))
		return;
	old = MemoryContextSwitchTo(update->context);
	spec_read(&update->reader, update->changes, zone, update->values, update->nulls);
	update->read_in = zone;
	MemoryContextSwitchTo(old);
}

/*
 * Refuse values that cannot be, whatever the task, before any is changed.  What
 * run_type can be depends on that.
 */
static void
update_check_values(const Update *update, Oid owner, pg_tz *zone)
{
	Datum		values[ADD_NPARAMS];
	bool		nulls[ADD_NPARAMS];
	TaskSpec	spec;

	memcpy(values, update->values, sizeof(values));
	memcpy(nulls, update->nulls, sizeof(nulls));
	values[ADD_CALLBACK] = PointerGetDatum(cstring_to_text(""));
	nulls[ADD_CALLBACK] = false;
	nulls[ADD_RUN_TYPE] = true;
	spec_build(&spec, values, nulls, owner, zone, update->now);
}

/* Return the time zone that a task will have. */
static pg_tz *
update_zone(const Update *update, const TaskRow *task)
{
	char	   *name;
	pg_tz	   *zone;

	if (update->given[ADD_TIMEZONE])
		return zone_by_name(update->nulls[ADD_TIMEZONE] ? NULL :
							TextDatumGetCString(update->values[ADD_TIMEZONE]));
	name = TextDatumGetCString(ROW_DATUM(task, task_timezone));
	zone = pg_tzset(name);
	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known to this server", name),
				 errhint("Give another timezone.")));
	return zone;
}

/*
 * Find out what a task will be.  An interval takes the place of a schedule, and
 * the other way round; without either a task is one that runs once, which must
 * be said.
 */
static void
update_build(Update *update, const TaskRow *task, bool follows, TaskSpec *spec)
{
	pg_tz	   *zone = update_zone(update, task);
	Datum	   *values = palloc(ADD_NPARAMS * sizeof(Datum));
	bool	   *nulls = palloc(ADD_NPARAMS * sizeof(bool));

	update_read(update, zone);
	spec_from_task(task, values, nulls);
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		if (!update->given[i])
			continue;
		values[i] = update->values[i];
		nulls[i] = update->nulls[i];
	}
	if (!update->nulls[ADD_EVERY] && !update->given[ADD_SCHEDULE])
		nulls[ADD_SCHEDULE] = true;
	if (!update->nulls[ADD_SCHEDULE] && !update->given[ADD_EVERY])
		nulls[ADD_EVERY] = true;
	if (task_is_lasting(task) && !update->given[ADD_RUN_TYPE])
	{
		/* (the word it is stored with) */
		values[ADD_RUN_TYPE] = ROW_DATUM(task, task_run_type);
		nulls[ADD_RUN_TYPE] = false;
	}
	if (task_is_recurring(task) && nulls[ADD_RUN_TYPE] &&
		!times_recur(!nulls[ADD_EVERY], !nulls[ADD_SCHEDULE]))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a recurring task needs an interval or a schedule"),
				 errhint("Give the other one, or run_type \"once\" if it is to run only once more.")));
	spec_build(spec, values, nulls, ROW_GET(ObjectId, task, task_owner), zone, update->now);
	if (spec->lasting && !task_is_lasting(task))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a recurring task needs an interval or a schedule"),
				 errhint("Give it with every or schedule, as in every => '10 minutes'.")));
	if (follows && spec->recurring && !spec->lasting)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a task that runs after others cannot have an interval or a schedule"),
				 errhint(UPDATE_JOINS)));
	if (update->given[ADD_KWARGS] && spec->validate)
		(void) spec_check_call(spec, ROW_GET(Bool, task, task_is_alias) ?
							   alias_require(spec->owner, spec->callback) : spec->callback);
	if (update->given[ADD_ON_FAILURE] && !nulls[ADD_ON_FAILURE])
		values[ADD_ON_FAILURE] =
			CStringGetTextDatum(spec_check_hook(spec, TextDatumGetCString(values[ADD_ON_FAILURE])));
}

/*
 * Return when a task runs next that recurs in another way than before, or does
 * no more.  An interval's grid begins where it did, or if there was none, at
 * the time that the task has: one that waits for that keeps it.  22023 if there
 * is no time to come.
 */
static TimestampTz
update_next_time(const TaskSpec *spec, const TaskRow *old, AlarmRow *alarm, TimestampTz now)
{
	TimestampTz scheduled_at = ROW_GET(TimestampTz, alarm, alarm_scheduled_at);
	bool		was_once = !task_is_recurring(old);
	bool		waits = ROW_ISNULL(alarm, alarm_failed_at) &&
	!slot_is_running(ROW_GET(Int64, alarm, alarm_id));
	Calendar	calendar = spec->calendar;
	TimestampTz next;

	if (ROW_ISNULL(old, task_every))
		ROW_SET(TimestampTz, alarm, alarm_anchor, scheduled_at);
	if (waits && (was_once || !spec->recurring || (spec->every != NULL && ROW_ISNULL(old, task_every))))
		return scheduled_at;
	if (spec->every == NULL)
		return spec_first_run(spec, now);
	calendar.every = *spec->every;
	calendar.anchor = ROW_GET(TimestampTz, alarm, alarm_anchor);
	if (!calendar_next(&calendar, now, &next))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval has no time to come")));
	return next;
}

/* Write what a task is from now on.  Return false if it was that before. */
static bool
update_write(Store *store, const Update *update, const TaskSpec *spec, TaskRow *old,
			 AlarmRow *alarm)
{
	TupleDesc	desc = RelationGetDescr(store->task);
	TaskRow		new = *old;
	TimestampTz was_due_at = change_due_at(alarm);
	bool		was_paused = !ROW_ISNULL(alarm, alarm_paused_at);
	bool		paused = update->given[ADD_PAUSED] ? spec->paused : was_paused;
	bool		same_task;
	bool		new_times;
	TimestampTz next;

	spec_fill_task(&new, spec);
	same_task = spec_same_task(&new, old, desc);
	new_times = spec->has_run_at || !spec_same_times(spec, &new, old, desc);
	if (same_task && !new_times && paused == was_paused)
		return false;

	if (spec->has_run_at)
	{
		next = spec->run_at;
		ROW_SET(TimestampTz, alarm, alarm_anchor, next);
	}
	else if (new_times)
		next = update_next_time(spec, old, alarm, update->now);
	else
		next = ROW_GET(TimestampTz, alarm, alarm_scheduled_at);
	if (new_times || ROW_ISNULL(alarm, alarm_failed_at))
	{
		/* a time that has come is waited for if nobody changes the last one */
		TimestampTz counts = !new_times && spec_same_until(&new, old, desc) ? next :
		Max(next, update->now);

		int64		run_count = ROW_GET(Int64, alarm, alarm_run_count);

		/*
		 * one that has failed in its last run is sent round again, as by a
		 * move
		 */
		if (new_times && !ROW_ISNULL(alarm, alarm_failed_at) && !update->given[ADD_MAX_RUNS])
			run_count = 0;
		if (spec_is_over(spec, counts, run_count))
		{
			spec_tell_over(spec, counts, true);
			return change_remove(store, alarm, 0);
		}
	}

	if (!same_task)
		store_update_task(store, &new);

	/* the alarm is written in any case: it tells a run's end of the change */
	if (new_times)
	{
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, next);
		change_time(alarm, next);
	}
	else if ((update->given[ADD_START_WITHIN] || update->given[ADD_CATCH_UP]) &&
			 next <= update->now && !alarm_has_begun(alarm))
		late_from_commit(alarm);
	if (task_is_lasting(old) && !spec->lasting && !ROW_IS_TRUE(alarm, alarm_follows))
	{
		/* nobody will ask for it; and a run in progress would have it wait */
		ROW_SET_NULL(alarm, alarm_waiting_since);
		alarm_raise_revision(alarm);
	}
	if (!paused)
		ROW_SET_NULL(alarm, alarm_paused_at);
	else if (!was_paused)
		ROW_SET(TimestampTz, alarm, alarm_paused_at, update->now);
	store_update_alarm(store, alarm);
	change_note(alarm, was_due_at);
	if (new_times)
		ending_moved(store, alarm);
	return true;
}

/* Say which task an error is about. */
static void
update_context(void *arg)
{
	errcontext("task \"%s\"", (const char *) arg);
}

/* Change one task; arg points to the Update. */
static bool
update_task(Store *store, AlarmRow *alarm, int64 arg)
{
	Update	   *update = (Update *) (intptr_t) arg;
	MemoryContext context = MemoryContextSwitchTo(update->scratch);
	ErrorContextCallback error_context;
	TaskRow		task;
	TaskSpec	spec;
	bool		changed = false;

	if (store_get_task(store, ROW_GET(Int64, alarm, alarm_id), &task))
	{
		error_context.callback = update_context;
		error_context.arg = TextDatumGetCString(ROW_DATUM(&task, task_task_id));
		error_context.previous = error_context_stack;
		error_context_stack = &error_context;
		update_build(update, &task, ROW_IS_TRUE(alarm, alarm_follows), &spec);
		changed = update_write(store, update, &spec, &task, alarm);
		error_context_stack = error_context.previous;
	}
	MemoryContextSwitchTo(context);
	MemoryContextReset(update->scratch);
	return changed;
}

PG_FUNCTION_INFO_V1(ts_update_tasks);
Datum
ts_update_tasks(PG_FUNCTION_ARGS)
{
	Update		update = {.now = GetCurrentTimestamp(),.context = CurrentMemoryContext};
	Oid			owner;
	Store	   *store;
	int			changed;

	check_writable("taskshed.update_tasks()");
	if (PG_ARGISNULL(0) || !JB_ROOT_IS_OBJECT(PG_GETARG_JSONB_P(0)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("changes must be a JSON object"),
				 errhint("Its keys are the parameters of taskshed.add_task() that are to be changed.")));
	check_selector(PG_ARGISNULL(1), PG_ARGISNULL(2), NULL);
	owner = check_owner(PG_ARGISNULL(3) ? NULL : NameStr(*PG_GETARG_NAME(3)));

	update.changes = PG_GETARG_JSONB_P(0);
	update.scratch = AllocSetContextCreate(update.context, "taskshed task",
										   ALLOCSET_DEFAULT_SIZES);
	spec_check_keys(update.changes, update.given);
	spec_init_reader(&update.reader);
	update_read(&update, session_timezone);
	update_check_keys(&update);
	update_check_values(&update, owner, update.given[ADD_TIMEZONE] ? update_zone(&update, NULL) :
						session_timezone);
	if (!update_has_changes(&update))
		PG_RETURN_INT32(0);

	store = store_open(RowExclusiveLock);
	changed = change_tasks(store, owner,
						   PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1),
						   PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2),
						   update_task, (int64) (intptr_t) &update);
	store_close(store, NoLock);
	PG_RETURN_INT32(changed);
}
