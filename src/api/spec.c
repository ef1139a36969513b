/*-------------------------------------------------------------------------
 *
 * spec.c
 *		The parameters of add_task, checked.
 *
 * add_task receives them as arguments, add_tasks as the keys of JSON objects;
 * both end up here as the same row of values.  NULL means the default
 * everywhere.  What other functions take, too, api_checks.c checks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "common/int.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "api/api.h"

static const struct config_enum_entry run_type_words[] = {
	{"once", false, false},
	{"recurring", true, false},
	{NULL, 0, false}
};

/* The checks of single values, which are not null: 22023, 22001. */

static void
spec_check_length(const SpecParam *param, Datum value)
{
	check_length(param->name, DatumGetTextPP(value), param->least, param->most);
}

static void
spec_check_not_supported(const SpecParam *param, Datum value)
{
	check_not_supported(param->name);
}

/* Check the names of other tasks: who leaves a variable unset does not mean none. */
static void
spec_check_names(const SpecParam *param, Datum value)
{
	if (array_contains_nulls(DatumGetArrayTypeP(value)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not contain nulls", param->name),
				 errhint("It is an array of task_ids.")));
}

/* Check the name of a channel: it must be one for NOTIFY. */
static void
spec_check_channel(const SpecParam *param, Datum value)
{
	int			length = VARSIZE_ANY_EXHDR(DatumGetTextPP(value));

	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", param->name),
				 errhint("It is the name of a channel, as in LISTEN. Leave it out, or give NULL, and there are no notices.")));
	if (length >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", param->name),
				 errdetail("It has %d bytes; the name of a channel has at most %d.",
						   length, NAMEDATALEN - 1)));
}

static void
spec_check_options(const SpecParam *param, Datum value)
{
	static const char *const names[] = {NOTIFY_RESULT};

	check_options(param->name, DatumGetJsonbP(value), names, lengthof(names));
}

static void
spec_check_at_least(const SpecParam *param, Datum value)
{
	if (DatumGetInt32(value) < param->least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least %d", param->name, param->least)));
}

static void
spec_check_run_at(const SpecParam *param, Datum value)
{
	check_run_at(DatumGetTimestampTz(value));
}

static void
spec_check_word(const SpecParam *param, Datum value)
{
	if (word_value(param->words, value, -1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s: \"%s\"", param->name, TextDatumGetCString(value)),
				 errhint("It can be %s.", word_list(param->words))));
}

/*
 * Return the length of an interval in microseconds; months count as 30 days,
 * days as 24 hours.  22015 if that is out of range.
 */
static int64
spec_interval_usecs(const Interval *interval)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		usecs;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs))
		ereport(ERROR,
				(errcode(ERRCODE_INTERVAL_FIELD_OVERFLOW),
				 errmsg("interval out of range")));
	return usecs;
}

/* Check an interval that must be neither negative nor longer than can be meant. */
static void
spec_check_duration(const SpecParam *param, Datum value)
{
	Interval   *interval = DatumGetIntervalP(value);

	if (spec_interval_usecs(interval) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", param->name)));
	every_check_length(param->name, interval);
}

static void
spec_check_backoff(const SpecParam *param, Datum value)
{
	double		backoff = DatumGetFloat8(value);

	if (isnan(backoff) || isinf(backoff) || backoff < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least 1 and finite", param->name)));
}

const SpecParam spec_params[ADD_NPARAMS] = {
#define ADD_TASK_PARAM(number, ...) [number] = {__VA_ARGS__},
#include "api/add_task_params.h"
#undef ADD_TASK_PARAM
};

/* Check all values, each by itself. */
static void
spec_check_values(const Datum *values, const bool *nulls)
{
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		if (!nulls[i] && spec_params[i].check != NULL)
			spec_params[i].check(&spec_params[i], values[i]);
	}
}

/* Prepare for reading JSON objects whose keys are parameters. */
void
spec_init_reader(SpecReader *reader)
{
	reader->desc = CreateTemplateTupleDesc(ADD_NPARAMS);
	for (int i = 0; i < ADD_NPARAMS; i++)
		TupleDescInitEntry(reader->desc, i + 1, spec_params[i].name, spec_params[i].type, -1, 0);
	fmgr_info(F_JSONB_TO_RECORD, &reader->to_record);
}

/* Refuse a key that is no parameter: 22023. */
pg_noreturn static void
spec_refuse_key(const char *key)
{
	char	   *names[ADD_NPARAMS];
	const char *closest;

	for (int i = 0; i < ADD_NPARAMS; i++)
		names[i] = pstrdup(spec_params[i].name);
	closest = resolve_closest_name(key, names, ADD_NPARAMS);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown key \"%s\"", key),
			 strcmp(key, "interval") == 0 ? errhint("The key is named \"every\".") :
			 strcmp(key, "coalesce") == 0 ? errhint("The key is named \"catch_up\".") :
			 closest != NULL ? errhint("Did you mean \"%s\"?", closest) :
			 errhint("The keys are the parameters of taskshed.add_task.")));
}

/*
 * Find out which parameters a JSON object has as keys, whatever their values.
 * Refuse other keys, and a cron expression for every: 22023.  So is an array or
 * object for an interval or a time: in the input of these, what marks it as one
 * counts as space.
 */
void
spec_check_keys(Jsonb *object, bool *given)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	int			param = -1;

	memset(given, false, ADD_NPARAMS * sizeof(bool));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *key;

		if (token == WJB_VALUE && param == ADD_EVERY && value.type == jbvString)
			cron_check_interval(pnstrdup(value.val.string.val, value.val.string.len));
		if (token == WJB_VALUE && param >= 0 && value.type == jbvBinary &&
			(spec_params[param].type == INTERVALOID || spec_params[param].type == TIMESTAMPTZOID))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must not be a JSON array or object", spec_params[param].name),
					 spec_params[param].type == INTERVALOID ?
					 errhint("Write an interval as a string, as in \"10 minutes\".") :
					 errhint("Write a time as a string, as in \"2030-01-31 12:00\".")));
		if (token != WJB_KEY)
			continue;
		key = pnstrdup(value.val.string.val, value.val.string.len);
		param = -1;
		for (int i = 0; param < 0 && i < ADD_NPARAMS; i++)
		{
			if (strcmp(key, spec_params[i].name) == 0)
				param = i;
		}
		if (param < 0)
			spec_refuse_key(key);
		given[param] = true;
		pfree(key);
	}
}

/*
 * Turn a JSON object, whose keys have been checked, into a row of parameters in
 * the current memory context.  Times without a zone are those of that one.
 */
void
spec_read(SpecReader *reader, Jsonb *object, pg_tz *zone, Datum *values, bool *nulls)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo rsinfo = {.type = T_ReturnSetInfo,.expectedDesc = reader->desc};
	HeapTupleData tuple;
	int			level = zone != session_timezone ? callback_enter_zone(zone) : 0;

	InitFunctionCallInfoData(*fcinfo, &reader->to_record, 1, InvalidOid, NULL, (Node *) &rsinfo);
	fcinfo->args[0].value = JsonbPGetDatum(object);
	fcinfo->args[0].isnull = false;
	tuple.t_data = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	heap_deform_tuple(&tuple, reader->desc, values, nulls);
	if (level != 0)
		AtEOXact_GUC(true, level);
}

/* Return whether a row of parameters has a time that may have been read in a zone. */
bool
spec_has_times(const bool *nulls)
{
	return !nulls[ADD_RUN_AT] || !nulls[ADD_UNTIL];
}

static Jsonb *
spec_kwargs(const Datum *values, const bool *nulls)
{
	Jsonb	   *kwargs;

	if (nulls[ADD_KWARGS])
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	kwargs = DatumGetJsonbP(values[ADD_KWARGS]);
	if (!JB_ROOT_IS_OBJECT(kwargs))
	{
		JsonbValue	scalar;
		bool		is_string = JB_ROOT_IS_SCALAR(kwargs) &&
		JsonbExtractScalar(&kwargs->root, &scalar) && scalar.type == jbvString;

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kwargs must be a JSON object"),
				 is_string ?
				 errhint("It is a JSON string: it looks as if the object was encoded twice.") :
				 errhint("Its keys are the names of the callback's arguments.")));
	}
	return kwargs;
}

/* Find out when a task recurs, if it does. */
static void
spec_times(TaskSpec *spec, const Datum *values, const bool *nulls)
{
	Calendar   *calendar = &spec->calendar;

	spec->recurring = times_recur(!nulls[ADD_EVERY], !nulls[ADD_SCHEDULE]);
	if (spec->recurring &&
		((!nulls[ADD_AFTER] && ARR_NDIM(DatumGetArrayTypeP(values[ADD_AFTER])) > 0) ||
		 !nulls[ADD_AFTER_GROUP]))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a task that runs after others cannot have an interval or a schedule"),
				 errhint("It runs whenever they have ended. Leave out every and schedule, or after and after_group.")));
	if (!nulls[ADD_RUN_TYPE])
	{
		bool		recurring = word_value(run_type_words, values[ADD_RUN_TYPE], false);

		if (!recurring && spec->recurring)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a task with run_type \"once\" cannot have an interval or a schedule"),
					 errhint("Leave out every and schedule, or run_type.")));
		spec->lasting = recurring && !spec->recurring;
		spec->recurring = recurring;
	}

	if (!nulls[ADD_EVERY] && !nulls[ADD_SCHEDULE])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("every and schedule cannot both be given")));
	if (!nulls[ADD_EVERY])
	{
		spec->every = DatumGetIntervalP(values[ADD_EVERY]);
		every_check(spec->every);
	}
	if (!nulls[ADD_SCHEDULE])
	{
		spec->schedule = DatumGetTextPP(values[ADD_SCHEDULE]);
		calendar->has_schedule = true;
		cron_check(text_to_cstring(spec->schedule), &calendar->schedule, NULL);
	}
}

/*
 * Return when a task runs first: now, or if it has a schedule at the next time
 * of that, unless it is told when.  22023 if the schedule has none.
 */
TimestampTz
spec_first_run(const TaskSpec *spec, TimestampTz now)
{
	TimestampTz first = now;

	if (spec->has_run_at)
		return spec->run_at;
	if (spec->schedule != NULL && !calendar_next(&spec->calendar, now, &first))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule \"%s\" has no time to come in time zone \"%s\"",
						text_to_cstring(spec->schedule), spec->timezone)));
	return first;
}

/*
 * Return whether a task's times are over.  They are if the next one, which has
 * not come yet or is still waited for, is after the last, or the task has run
 * as often as it may.
 */
bool
spec_is_over(const TaskSpec *spec, TimestampTz next, int64 run_count)
{
	return catch_up_is_over(next, spec->has_until ? spec->until : DT_NOEND,
							run_count, spec->recurring ? spec->max_runs : 0);
}

/* Say that a task was not added, or is no more, because its times are over. */
void
spec_tell_over(const TaskSpec *spec, TimestampTz next, bool removed)
{
	char	   *task_id = text_to_cstring(spec->task_id);

	ereport(NOTICE,
			(removed ? errmsg("task \"%s\" is removed, since its times are over", task_id) :
			 errmsg("task \"%s\" is not added, since its times are over", task_id),
			 spec->has_until && next > spec->until ?
			 errdetail("It was to run until %s.", timestamptz_to_str(spec->until)) :
			 errdetail("It has had its last run, since max_runs is %d.", spec->max_runs)));
}

/* Find out until when a task runs. */
static void
spec_until(TaskSpec *spec, const Datum *values, const bool *nulls, TimestampTz now)
{
	spec->has_until = !nulls[ADD_UNTIL];
	if (!spec->has_until)
		return;
	spec->until = DatumGetTimestampTz(values[ADD_UNTIL]);
	if (spec->has_run_at && spec->until < spec->run_at && spec->until >= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("until must not be before the first run"),
				 errhint("Such a task would never run.")));
}

/*
 * Turn a row of parameters, in the order of ADD_CALLBACK and so on, into a
 * TaskSpec in the current memory context.  The values must stay where they are.
 * The owner and the time zone are those that the task will have, found out by
 * the caller.  Errors: 0A000, 22023 and 22001 as documented for add_task.
 */
void
spec_build(TaskSpec *spec, const Datum *values, const bool *nulls, Oid owner, pg_tz *zone,
		   TimestampTz now)
{
	memset(spec, 0, sizeof(*spec));
	spec->values = values;
	spec->nulls = nulls;
	spec->owner = owner;
	spec->calendar.zone = zone;
	spec->timezone = pg_get_timezone_name(zone);

	if (nulls[ADD_CALLBACK])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("callback must not be null"),
				 errhint("Give the name of the function to be called.")));
	spec_check_values(values, nulls);
	spec->callback = TextDatumGetCString(values[ADD_CALLBACK]);
	spec->kwargs = spec_kwargs(values, nulls);
	spec->has_run_at = !nulls[ADD_RUN_AT];
	if (spec->has_run_at)
		spec->run_at = DatumGetTimestampTz(values[ADD_RUN_AT]);
	spec_times(spec, values, nulls);
	spec_until(spec, values, nulls, now);
	spec->max_runs = nulls[ADD_MAX_RUNS] ? 0 : DatumGetInt32(values[ADD_MAX_RUNS]);

	spec->task_id = nulls[ADD_TASK_ID] ? NULL : DatumGetTextPP(values[ADD_TASK_ID]);
	spec->has_paused = !nulls[ADD_PAUSED];
	spec->paused = spec->has_paused && DatumGetBool(values[ADD_PAUSED]);
	spec->catch_up = nulls[ADD_CATCH_UP] ? CATCH_UP_COALESCE :
		word_value(catch_up_words, values[ADD_CATCH_UP], CATCH_UP_COALESCE);
	spec->replace_existing = nulls[ADD_REPLACE_EXISTING] ||
		DatumGetBool(values[ADD_REPLACE_EXISTING]);
	spec->validate = nulls[ADD_VALIDATE] || DatumGetBool(values[ADD_VALIDATE]);
	if (!nulls[ADD_SETTINGS])
		task_settings_check(DatumGetJsonbP(values[ADD_SETTINGS]), owner);
}

/*
 * Find out whether a callback, which is not an alias, can be called with a
 * task's kwargs as its owner.  Return its name, schema-qualified.
 */
char *
spec_check_call(const TaskSpec *spec, const char *name)
{
	Callback   *callback = callback_prepare(name, spec->kwargs);
	char	   *qualified = pstrdup(callback->qualified);

	callback_check_privilege(callback, spec->owner);
	call_check_values(callback, callback_bind(callback, spec->kwargs, spec->calendar.zone, true));
	return qualified;
}

/* Say which parameter an error is about. */
static void
spec_hook_context(void *arg)
{
	errcontext("parameter \"on_failure\"");
}

/*
 * Find out whether a callback can be called when a task fails, as its owner.  Return
 * its name as it is stored: an alias as it is, for it may be re-pointed.  An empty
 * one stands for none.
 */
char *
spec_check_hook(const TaskSpec *spec, const char *name)
{
	ErrorContextCallback context = {.callback = spec_hook_context,.previous = error_context_stack};
	char	   *alias;
	const char *target;
	char	   *stored;

	if (name[0] == '\0')
		return pstrdup(name);
	error_context_stack = &context;
	alias = alias_find(spec->owner, name);
	if (alias != NULL && !on_failure_is_alias(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("alias \"%s\" cannot be used for on_failure, since it has a dot", name),
				 errhint("It would be taken for a schema and a function. Give the function, or an alias without a dot.")));
	target = alias != NULL ? alias : name;
	if (spec->validate)
	{
		Jsonb	   *kwargs = callback_pick(target, on_failure_sample());
		Callback   *callback;

		if (kwargs == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("\"%s\" has arguments that are not told when a task fails", target),
					 errhint("Told are task_id, group_id, owner, callback, task_kwargs, queue, queue_key, run_id, run_at, attempt, status, sqlstate, message, detail and failures_in_row; or kwargs jsonb has them all. Other arguments need defaults.")));
		callback = callback_prepare(target, kwargs);
		callback_check_privilege(callback, spec->owner);
		stored = pstrdup(callback->qualified);
		call_check_values(callback, callback_bind(callback, kwargs, spec->calendar.zone, true));
	}
	else
		stored = resolve_qualify(target);
	error_context_stack = context.previous;
	return alias != NULL ? pstrdup(name) : stored;
}
