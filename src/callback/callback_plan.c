/*-------------------------------------------------------------------------
 *
 * callback_plan.c
 *		From a function or procedure to a prepared call.
 *
 * The call is SELECT name(a => $1, ...), or CALL for a procedure, with a
 * parameter for each value of kwargs, of the type that the argument has.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

#include "callback/callback.h"

/* Return the number of the key that gives an argument its value, or -1. */
static int
callback_find_key(const Callback *callback, const CallbackArgument *argument)
{
	for (int key = 0; key < callback->nkeys; key++)
	{
		if (argument->is_input && strcmp(callback->keys[key], argument->name) == 0)
			return key;
	}
	return -1;
}

/*
 * Return whether a type is polymorphic, and of which kind.  Arguments of one kind
 * go together, and must agree.
 */
static bool
callback_is_polymorphic(Oid type, bool *compatible, bool *array)
{
	*array = (type == ANYARRAYOID || type == ANYCOMPATIBLEARRAYOID);
	*compatible = (type == ANYCOMPATIBLEOID || type == ANYCOMPATIBLENONARRAYOID ||
				   type == ANYCOMPATIBLEARRAYOID);
	return *array || *compatible || type == ANYELEMENTOID || type == ANYNONARRAYOID;
}

/*
 * Return the type that comes nearest to a JSON value of that kind, as an
 * element of an array if the argument is one; InvalidOid if any would do.
 */
static Oid
callback_nearest_type(char kind, bool array)
{
	if (kind == '0' || (array && kind == '_'))
		return InvalidOid;
	if (kind == (array ? 'N' : 'n'))
		return NUMERICOID;
	if (kind == (array ? 'S' : 's'))
		return TEXTOID;
	if (kind == (array ? 'B' : 'b'))
		return BOOLOID;
	return JSONBOID;
}

/*
 * Return the type that a value has in the call: the declared one, or for a
 * polymorphic argument one that suits the JSON value.  What says nothing, as
 * null, has that of the first of the others that it must go together with.
 */
static Oid
callback_parameter_type(Callback *callback, const CallbackArgument *arguments, int narguments,
						const CallbackArgument *argument, char kind)
{
	bool		array;
	bool		compatible;
	Oid			type;

	if (!callback_is_polymorphic(argument->type, &compatible, &array))
	{
		if (get_typtype(argument->type) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("argument \"%s\" of callback %s has type %s, which no JSON value can have",
							argument->name, callback->signature,
							format_type_be(argument->type))));
		return argument->type;
	}

	callback->polymorphic = true;
	type = callback_nearest_type(kind, array);
	for (int i = 0; !OidIsValid(type) && i < narguments; i++)
	{
		bool		other_array;
		bool		other_compatible;
		int			key = callback_find_key(callback, &arguments[i]);

		if (key >= 0 &&
			callback_is_polymorphic(arguments[i].type, &other_compatible, &other_array) &&
			other_compatible == compatible)
			type = callback_nearest_type(callback->kinds[key], other_array);
	}
	if (!OidIsValid(type))
		type = TEXTOID;
	return array ? get_array_type(type) : type;
}

/*
 * Find out about a parameter's type, and all those that it is made of.
 *
 * One question is whether making a value would run code of another user, as in a
 * domain's constraint.  Superusers' code is trusted, here as everywhere.  The
 * other is whether there is a row type anywhere in it, whose columns can change
 * while all the types stay the same.
 */
static void
callback_examine_type(CallbackParameter *param, Oid type)
{
	Oid			element = get_element_type(type);
	HeapTuple	tuple;
	char		typtype;
	Oid			owner;
	Oid			relid;
	Oid			base;

	check_stack_depth();
	if (OidIsValid(element))
	{
		callback_examine_type(param, element);
		return;
	}

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	typtype = ((Form_pg_type) GETSTRUCT(tuple))->typtype;
	owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
	relid = ((Form_pg_type) GETSTRUCT(tuple))->typrelid;
	base = ((Form_pg_type) GETSTRUCT(tuple))->typbasetype;
	ReleaseSysCache(tuple);

	if (typtype == TYPTYPE_ENUM)
		return;
	if (owner != GetUserId() && !superuser_arg(owner))
		param->foreign = true;
	if (typtype == TYPTYPE_COMPOSITE)
	{
		Relation	rel = relation_open(relid, AccessShareLock);
		TupleDesc	desc = RelationGetDescr(rel);

		param->has_row_type = true;
		for (int i = 0; i < desc->natts; i++)
		{
			if (!TupleDescAttr(desc, i)->attisdropped)
				callback_examine_type(param, TupleDescAttr(desc, i)->atttypid);
		}
		relation_close(rel, AccessShareLock);
	}
	else if (typtype == TYPTYPE_DOMAIN)
		callback_examine_type(param, base); /* itself perhaps a domain */
	else if (typtype == TYPTYPE_RANGE)
		callback_examine_type(param, get_range_subtype(type));
	else if (typtype == TYPTYPE_MULTIRANGE)
		callback_examine_type(param, get_multirange_range(type));
}

/* Return whether a text means the same value of this type whatever has been set. */
static bool
callback_type_is_plain(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case INT4ARRAYOID:
		case INT8ARRAYOID:
		case NUMERICARRAYOID:
		case TEXTARRAYOID:
			return true;
		default:
			return get_typtype(type) == TYPTYPE_ENUM;
	}
}

/* Add a value to be passed, and return its number in the call. */
static int
callback_add_parameter(Callback *callback, const char *key, Oid type, bool whole)
{
	CallbackParameter *param = &callback->params[callback->nparams];

	param->type = type;
	param->whole = whole;
	callback_examine_type(param, type);
	callback->has_row_type = callback->has_row_type || param->has_row_type;
	if (!whole && !callback_type_is_plain(type))
		callback->needs_settings = true;
	if (!whole)
	{
		param->desc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(param->desc, 1, key, type, -1, 0);
		fmgr_info_cxt(F_JSONB_TO_RECORD, &param->to_record, callback->context);
	}
	return ++callback->nparams;
}

/*
 * Write the call, in the order of the declared arguments: VARIADIC is last.
 *
 * It has the name that the callback was looked up by, not the one it turned
 * out to have: then what somebody renames meanwhile is not there, as it would
 * not be for any other statement.
 */
void
callback_write_call(Callback *callback)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(callback->funcid, &arguments);
	bool		whole = resolve_takes_whole(callback->funcid);
	const char *separator = "";
	int			npositional = 0;
	StringInfoData query;

	/*
	 * A CALL has the results among its arguments, and those may be without a
	 * name, or have that of an input.  All up to them go by their place then;
	 * none has a default that it could have been left to.
	 */
	for (int i = 0; i < n; i++)
	{
		if (arguments[i].is_result && callback->kind != CALLBACK_FUNCTION)
			npositional = i + 1;
	}

	initStringInfo(&query);
	appendStringInfo(&query, "%s %s(", callback->kind == CALLBACK_FUNCTION ? "SELECT" : "CALL",
					 NameListToQuotedString(resolve_name(callback->name)));
	callback->params = palloc0((n + 1) * sizeof(CallbackParameter));
	for (int i = 0; i < n; i++)
	{
		CallbackArgument *argument = &arguments[i];
		int			key;

		if (i < npositional && !argument->is_input)
		{
			appendStringInfo(&query, "%sNULL", separator);
			separator = ", ";
			continue;
		}
		if (!argument->is_input || argument->name[0] == '\0')
			continue;
		key = callback_find_key(callback, argument);
		if (key < 0 && !whole)
			continue;
		appendStringInfo(&query, "%s%s%s%s$%d", separator,
						 argument->is_variadic ? "VARIADIC " : "",
						 i < npositional ? "" : quote_identifier(argument->name),
						 i < npositional ? "" : " => ",
						 callback_add_parameter(callback, argument->name,
												whole ? argument->type :
												callback_parameter_type(callback, arguments, n, argument,
																		callback->kinds[key]),
												whole));
		separator = ", ";
	}
	appendStringInfoChar(&query, ')');
	callback->query = query.data;
}

/*
 * Have the position of an error refer to a text that is being parsed, which the
 * user's statement does not contain.  An error context callback; arg is the
 * text.
 */
void
callback_position_context(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((char *) arg);
	}
}

/* Say that the values do not go together as polymorphic arguments: 42883. */
static void
callback_report_types(const Callback *callback)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < callback->nparams; i++)
		appendStringInfo(&list, "%s%s %s", i > 0 ? ", " : "",
						 NameStr(TupleDescAttr(callback->params[i].desc, 0)->attname),
						 format_type_be(callback->params[i].type));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("callback %s cannot be called with values of these types", callback->signature),
			 errdetail("The arguments are %s.", list.data)));
}

/*
 * Return the function or procedure that a call is one of, according to the
 * parser.
 */
static Oid
callback_analyzed_funcid(const Query *query)
{
	Node	   *call;

	if (query->commandType == CMD_UTILITY)
		call = (Node *) castNode(CallStmt, query->utilityStmt)->funcexpr;
	else
		call = (Node *) linitial_node(TargetEntry, query->targetList)->expr;
	return IsA(call, FuncExpr) ? ((FuncExpr *) call)->funcid : InvalidOid;
}

/*
 * Prepare the call.  That finds what remains to be found wrong with it, as with
 * polymorphic types that do not go together.  Return false if it would not call
 * the function that was found.
 */
bool
callback_plan(Callback *callback)
{
	RawStmt    *parsed = linitial_node(RawStmt, pg_parse_query(callback->query));
	CachedPlanSource *plan = CreateCachedPlan(parsed, callback->query,
											  CreateCommandTag(parsed->stmt));
	Oid		   *types = palloc((callback->nparams + 1) * sizeof(Oid));
	List	   *queries = NIL;
	MemoryContext old = CurrentMemoryContext;
	ErrorContextCallback context;

	for (int i = 0; i < callback->nparams; i++)
		types[i] = callback->params[i].type;

	/* analyze it, and say what is wrong if that fails */
	context.callback = callback_position_context;
	context.arg = callback->query;
	context.previous = error_context_stack;
	error_context_stack = &context;
	PG_TRY();
	{
		queries = pg_analyze_and_rewrite_fixedparams(parsed, callback->query, types,
													 callback->nparams, NULL);
	}
	PG_CATCH();
	{
		int			sqlstate = geterrcode();

		if (sqlstate != ERRCODE_AMBIGUOUS_FUNCTION &&
			sqlstate != ERRCODE_UNDEFINED_FUNCTION &&
			sqlstate != ERRCODE_UNDEFINED_SCHEMA &&
			(sqlstate != ERRCODE_DATATYPE_MISMATCH || !callback->polymorphic))
			PG_RE_THROW();
		MemoryContextSwitchTo(old);
		FlushErrorState();
		error_context_stack = context.previous;
		if (sqlstate == ERRCODE_AMBIGUOUS_FUNCTION)
			resolve_report_ambiguous(resolve_name(callback->name));
		if (sqlstate != ERRCODE_UNDEFINED_SCHEMA && callback->polymorphic)
			callback_report_types(callback);
		/* it has gone since it was found */
		resolve_report_unknown(resolve_name(callback->name));
	}
	PG_END_TRY();
	error_context_stack = context.previous;

	/* keep its plan, if it is a call of the function that was found */
	if (callback_analyzed_funcid(linitial_node(Query, queries)) != callback->funcid)
		return false;
	CompleteCachedPlan(plan, queries, NULL, types, callback->nparams, NULL, NULL,
					   CURSOR_OPT_GENERIC_PLAN, false);
	SaveCachedPlan(plan);
	callback->plan = plan;
	return true;
}
