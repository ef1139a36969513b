/*-------------------------------------------------------------------------
 *
 * callback_bind.c
 *		From the values in kwargs to those of a call's parameters.
 *
 * The conversion is jsonb_to_record's, called for each argument with that as
 * the record's only column: one mechanism for scheduling, trying and running,
 * with the meaning everybody knows from SQL, and when a value does not fit it
 * is known which.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"

#include "callback/callback.h"

/*
 * Say which argument could not be converted, without its value, when
 * callback_bind has failed.  Return NULL if the error was not about that.
 */
const char *
callback_unbound(const Callback *callback)
{
	if (callback->binding < 0)
		return NULL;
	return psprintf("argument \"%s\" of callback %s cannot have the value given in kwargs",
					NameStr(TupleDescAttr(callback->params[callback->binding].desc, 0)->attname),
					callback->signature);
}

static void
callback_bind_context(void *arg)
{
	const Callback *callback = arg;
	const CallbackParameter *param;

	if (callback->binding < 0)
		return;
	param = &callback->params[callback->binding];
	errcontext("argument \"%s\" (%s) of callback %s",
			   NameStr(TupleDescAttr(param->desc, 0)->attname),
			   format_type_be(param->type), callback->signature);
}

static void
callback_set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

static void
callback_set_zone(pg_tz *zone)
{
	const char *name = pg_get_timezone_name(zone);

	/* SET TimeZone would count a number the other way round */
	if (name[strspn(name, " +-.0123456789")] == '\0')
		name = psprintf("<task>%s", name);
	callback_set("TimeZone", name);
}

/*
 * Have texts read in that time zone from now on.  Return the level of settings
 * to go back to.
 */
int
callback_enter_zone(pg_tz *zone)
{
	int			level = NewGUCNestLevel();

	callback_set_zone(zone);
	return level;
}

/*
 * Enter the settings by which values are read.  A timestamp without a zone, or
 * a date like 01/02/2100, is to mean the same to all who convert it: whoever
 * schedules a task, tries it, and runs it.  So it is read with the task's time
 * zone and the default styles.  Return the level of settings to go back to, or
 * 0 if they are as they have to be.
 */
static int
callback_enter_settings(const Callback *callback, pg_tz *zone)
{
	int			level;

	if (!callback->needs_settings ||
		(zone == session_timezone && DateStyle == USE_ISO_DATES &&
		 DateOrder == DATEORDER_MDY && IntervalStyle == INTSTYLE_POSTGRES))
		return 0;
	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the task's time zone is not known to this server")));
	level = NewGUCNestLevel();
	if (zone != session_timezone)
		callback_set_zone(zone);
	if (DateStyle != USE_ISO_DATES || DateOrder != DATEORDER_MDY)
		callback_set("DateStyle", "ISO, MDY");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		callback_set("IntervalStyle", "postgres");
	return level;
}

/* Convert the value of one argument. */
static Datum
callback_convert(CallbackParameter *param, Jsonb *kwargs, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo rsinfo = {.type = T_ReturnSetInfo,.expectedDesc = param->desc};
	FmgrInfo	afresh;
	FmgrInfo   *to_record = &param->to_record;
	HeapTupleData tuple;
	Datum		value;

	/*
	 * What jsonb_to_record has once seen of a row type inside another type,
	 * it believes for ever.
	 */
	if (param->has_row_type)
	{
		fmgr_info(F_JSONB_TO_RECORD, &afresh);
		to_record = &afresh;
	}
	InitFunctionCallInfoData(*fcinfo, to_record, 1, InvalidOid, NULL, (Node *) &rsinfo);
	fcinfo->args[0].value = JsonbPGetDatum(kwargs);
	fcinfo->args[0].isnull = false;
	tuple.t_data = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	heap_deform_tuple(&tuple, param->desc, &value, isnull);
	return value;
}

/* Convert what is in kwargs; of others' types only if it is not for checking. */
static void
callback_convert_all(Callback *callback, Jsonb *kwargs, bool checking, ParamListInfo params)
{
	for (int i = 0; i < callback->nparams; i++)
	{
		CallbackParameter *param = &callback->params[i];
		ParamExternData *value = &params->params[i];

		value->pflags = PARAM_FLAG_CONST;
		value->ptype = param->type;
		if (checking && param->foreign)
		{
			value->value = (Datum) 0;
			value->isnull = true;
			continue;
		}
		if (param->whole)
		{
			value->value = JsonbPGetDatum(kwargs);
			value->isnull = false;
			continue;
		}
		callback->binding = i;
		value->value = callback_convert(param, kwargs, &value->isnull);
		callback->binding = -1;
	}
}

/*
 * Return a parameter of the call.  The server shows no parameters in its log,
 * or in a plan that auto_explain puts there, of a list that has such a
 * function.
 */
static ParamExternData *
callback_fetch_parameter(ParamListInfo params, int number, bool speculative,
						 ParamExternData *workspace)
{
	return &params->params[number - 1];
}

/*
 * Convert kwargs into the values of the arguments, in the current memory
 * context.  The errors are those of the types' input functions; their context
 * names the argument.  zone is the task's.
 *
 * Somebody who only schedules a call does not mean to run the code that makes
 * values of the types of others.  With checking such values are left NULL.
 */
ParamListInfo
callback_bind(Callback *callback, Jsonb *kwargs, pg_tz *zone, bool checking)
{
	ErrorContextCallback context;
	ParamListInfo params;
	volatile int level;

	callback->binding = -1;
	if (callback->nparams == 0)
		return NULL;

	params = makeParamList(callback->nparams);
	params->paramFetch = callback_fetch_parameter;
	level = callback_enter_settings(callback, zone);
	context.callback = callback_bind_context;
	context.arg = callback;
	context.previous = error_context_stack;
	error_context_stack = &context;
	callback_hold(callback);
	PG_TRY();
	{
		callback_convert_all(callback, kwargs, checking, params);
	}
	PG_FINALLY();
	{
		callback_release(callback);
	}
	PG_END_TRY();
	error_context_stack = context.previous;
	if (level != 0)
		AtEOXact_GUC(true, level);
	return params;
}
