/*-------------------------------------------------------------------------
 *
 * callback.c
 *		From a callback's name and kwargs to a call.
 *
 * A callback is found by its name and the keys of its kwargs, as a call
 * name(key => value, ...) would be.  What was found is kept as a Callback:
 * the argument types, what is needed to turn a JSON object into values of
 * those types, and, once it has been called, its plan.  Callbacks are cached
 * for each name, set of keys, role and search_path, and found again when
 * anything they depend on may have changed.
 *
 * The conversion is jsonb_to_record's, called with the arguments as the
 * record's columns: one mechanism for scheduling, trying and running, with
 * the meaning everybody knows from SQL.
 *
 * The call is a prepared statement, SELECT schema.name(a => $1, ...), run
 * through a portal at the transaction's top level as a client's would be.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "taskshed.h"

/* Callbacks kept from one transaction to the next. */
#define CALLBACKS_KEPT	256

struct Callback
{
	MemoryContext context;		/* holds this and all that hangs off it */
	char	   *name;			/* as asked for */
	Oid			role;
	uint64		path;			/* hash of search_path; 0 for qualified names */
	int			nkeys;
	char	  **keys;			/* of kwargs, in jsonb's order */

	uint64		generation;		/* valid while this is the current one */
	Oid			funcid;
	char	   *qualified;		/* name, schema-qualified and quoted */
	char	   *query;			/* the call */
	TupleDesc	arguments;		/* names and types, in the order of keys */
	FmgrInfo	to_record;		/* jsonb_to_record, with its cache */
	CachedPlanSource *plan;		/* NULL before the first call */
};

typedef struct CallbackEntry
{
	uint64		hash;			/* of name, role, path and keys */
	Callback   *callback;
} CallbackEntry;

static HTAB *callbacks = NULL;

/* Out of date, but perhaps still in the hands of somebody up the stack. */
static List *retired = NIL;

/* Raised whenever something in the catalogs changes that we depend on. */
static uint64 generation = 1;

static void
callback_syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}

static void
callback_drop(Callback *callback)
{
	if (callback->plan != NULL)
		DropCachedPlan(callback->plan);
	MemoryContextDelete(callback->context);
}

/* Takes a callback out of use; its memory stays until nobody can have it. */
static void
callback_retire(Callback *callback)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	retired = lappend(retired, callback);
	MemoryContextSwitchTo(old);
}

/*
 * Frees retired callbacks, and all if there are too many.  Nobody may hold
 * one: so between transactions, or between runs.
 */
void
callback_prune(void)
{
	if (callbacks != NULL && hash_get_num_entries(callbacks) > CALLBACKS_KEPT)
	{
		HASH_SEQ_STATUS scan;
		CallbackEntry *entry;

		hash_seq_init(&scan, callbacks);
		while ((entry = hash_seq_search(&scan)) != NULL)
		{
			callback_retire(entry->callback);
			hash_search(callbacks, &entry->hash, HASH_REMOVE, NULL);
		}
	}
	while (retired != NIL)
	{
		Callback   *callback = linitial(retired);

		retired = list_delete_first(retired);
		callback_drop(callback);
	}
}

static void
callback_xact_callback(XactEvent event, void *arg)
{
	/* a worker prunes between runs: a callback of its may COMMIT */
	if (ts_my_worker == NULL &&
		(event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT))
		callback_prune();
}

/* Once a process. */
void
callback_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, callback_syscache_callback, (Datum) 0);
	RegisterXactCallback(callback_xact_callback, NULL);
}

/* Fills in what is kept of a callback, all but its plan. */
static void
callback_build(Callback *callback)
{
	char	  **argnames;
	Oid		   *argtypes;
	int			ndefaults;
	int			nargs;
	StringInfoData query;
	MemoryContext old = CurrentMemoryContext;

	callback->funcid = resolve_callback(callback->name, callback->keys, callback->nkeys);
	nargs = resolve_input_arguments(callback->funcid, &argnames, &argtypes, &ndefaults);

	MemoryContextSwitchTo(callback->context);
	callback->qualified = resolve_qualified_name(callback->funcid);
	callback->arguments = CreateTemplateTupleDesc(callback->nkeys);
	initStringInfo(&query);
	appendStringInfo(&query, "SELECT %s(", callback->qualified);
	for (int i = 0; i < callback->nkeys; i++)
	{
		int			j;

		for (j = 0; j < nargs && strcmp(callback->keys[i], argnames[j]) != 0; j++)
			;
		if (j == nargs)
			elog(ERROR, "argument \"%s\" of %s is gone", callback->keys[i], callback->qualified);
		if (get_typtype(argtypes[j]) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("argument \"%s\" of callback %s is of type %s, which is not supported yet",
							argnames[j], callback->qualified, format_type_be(argtypes[j]))));
		TupleDescInitEntry(callback->arguments, i + 1, argnames[j], argtypes[j], -1, 0);
		appendStringInfo(&query, "%s%s => $%d", i > 0 ? ", " : "",
						 quote_identifier(argnames[j]), i + 1);
	}
	appendStringInfoChar(&query, ')');
	callback->query = query.data;
	fmgr_info_cxt(F_JSONB_TO_RECORD, &callback->to_record, callback->context);
	MemoryContextSwitchTo(old);
}

/* The keys of a JSON object in jsonb's own order. */
static int
callback_keys(Jsonb *kwargs, char ***keys)
{
	JsonbIterator *it = JsonbIteratorInit(&kwargs->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	int			n = 0;

	*keys = palloc((JB_ROOT_COUNT(kwargs) + 1) * sizeof(char *));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			(*keys)[n++] = pnstrdup(value.val.string.val, value.val.string.len);
	}
	return n;
}

static bool
callback_matches(const Callback *callback, const char *name, Oid role, uint64 path,
				 char **keys, int nkeys)
{
	if (callback->generation != generation || callback->role != role ||
		callback->path != path || callback->nkeys != nkeys ||
		strcmp(callback->name, name) != 0)
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		if (strcmp(callback->keys[i], keys[i]) != 0)
			return false;
	}
	return true;
}

/*
 * Finds the callback of a name that takes the keys of kwargs, for the current
 * user and, if the name is not qualified, the current search_path.  Valid
 * until the end of the transaction, or of the run.
 *
 * Errors: 42883 no such callback or arguments, 42725 more than one, 42809 not
 * a plain function, 42602 not a name, 42501 no USAGE on the schema.
 */
Callback *
callback_prepare(const char *name, Jsonb *kwargs)
{
	Oid			role = GetUserId();
	char	  **keys;
	int			nkeys = callback_keys(kwargs, &keys);
	uint64		path = 0;
	uint64		hash;
	CallbackEntry *entry;
	Callback   *callback;
	MemoryContext context;
	MemoryContext old;
	bool		found;

	if (list_length(resolve_name(name)) == 1)
	{
		List	   *schemas = fetch_search_path(true);
		ListCell   *lc;

		path = 1;
		foreach(lc, schemas)
			path = hash_combine64(path, lfirst_oid(lc));
	}
	hash = hash_combine64(path, role);
	hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) name, strlen(name), 0));
	for (int i = 0; i < nkeys; i++)
		hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) keys[i],
														strlen(keys[i]), i + 1));

	if (callbacks == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(CallbackEntry)};

		callbacks = hash_create("taskshed callbacks", CALLBACKS_KEPT, &ctl,
								HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(callbacks, &hash, HASH_FIND, NULL);
	if (entry != NULL && callback_matches(entry->callback, name, role, path, keys, nkeys))
		return entry->callback;

	context = AllocSetContextCreate(CurrentMemoryContext, "taskshed callback",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	callback = palloc0(sizeof(Callback));
	callback->context = context;
	callback->name = pstrdup(name);
	callback->role = role;
	callback->path = path;
	callback->nkeys = nkeys;
	callback->keys = palloc((nkeys + 1) * sizeof(char *));
	for (int i = 0; i < nkeys; i++)
		callback->keys[i] = pstrdup(keys[i]);
	/* taken before looking: what changes meanwhile makes it stale */
	callback->generation = generation;
	MemoryContextSwitchTo(old);
	callback_build(callback);

	entry = hash_search(callbacks, &hash, HASH_ENTER, &found);
	if (found)
		callback_retire(entry->callback);
	entry->callback = callback;
	MemoryContextSetParent(context, TopMemoryContext);
	return callback;
}

/* The callback's name as it is stored: schema-qualified. */
const char *
callback_name(const Callback *callback)
{
	return callback->qualified;
}

/* May role call it?  42501 if not. */
void
callback_check_privilege(const Callback *callback, Oid role)
{
	Oid			schema = get_func_namespace(callback->funcid);

	if (!compat_may_use_schema(schema, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", get_namespace_name(schema)),
				 errdetail("Role \"%s\" needs USAGE on it to call %s.",
						   GetUserNameFromId(role, false), callback->qualified)));
	if (!compat_may_execute(callback->funcid, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", callback->qualified),
				 errdetail("Role \"%s\" needs EXECUTE on it.",
						   GetUserNameFromId(role, false))));
}

/*
 * Converts kwargs into the values of the arguments, in the current memory
 * context.  The errors are those of the types' input functions.
 */
ParamListInfo
callback_bind(Callback *callback, Jsonb *kwargs)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo rsinfo = {.type = T_ReturnSetInfo,.expectedDesc = callback->arguments};
	ParamListInfo params;
	HeapTupleData tuple;
	HeapTupleHeader record;
	Datum	   *values;
	bool	   *nulls;

	if (callback->nkeys == 0)
		return NULL;

	InitFunctionCallInfoData(*fcinfo, &callback->to_record, 1, InvalidOid, NULL,
							 (Node *) &rsinfo);
	fcinfo->args[0].value = JsonbPGetDatum(kwargs);
	fcinfo->args[0].isnull = false;
	record = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));

	tuple.t_len = HeapTupleHeaderGetDatumLength(record);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = record;
	values = palloc(callback->nkeys * sizeof(Datum));
	nulls = palloc(callback->nkeys * sizeof(bool));
	heap_deform_tuple(&tuple, callback->arguments, values, nulls);

	params = makeParamList(callback->nkeys);
	for (int i = 0; i < callback->nkeys; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = TupleDescAttr(callback->arguments, i)->atttypid;
	}
	return params;
}

static void
callback_plan(Callback *callback)
{
	RawStmt    *parsed = linitial_node(RawStmt, pg_parse_query(callback->query));
	CachedPlanSource *plan = CreateCachedPlan(parsed, callback->query, CMDTAG_SELECT);
	Oid		   *types = palloc((callback->nkeys + 1) * sizeof(Oid));
	List	   *queries;

	for (int i = 0; i < callback->nkeys; i++)
		types[i] = TupleDescAttr(callback->arguments, i)->atttypid;
	queries = pg_analyze_and_rewrite_fixedparams(parsed, callback->query, types,
												 callback->nkeys, NULL);
	CompleteCachedPlan(plan, queries, NULL, types, callback->nkeys, NULL, NULL,
					   CURSOR_OPT_GENERIC_PLAN, false);
	SaveCachedPlan(plan);
	callback->plan = plan;
}

/*
 * Calls the callback at the top level of the worker's transaction, and drops
 * what it returns.  The caller has an active snapshot.
 */
void
callback_execute(Callback *callback, ParamListInfo params)
{
	Portal		portal;
	CachedPlan *plan;
	QueryCompletion qc;

	if (callback->plan == NULL)
		callback_plan(callback);

	portal = CreatePortal("", true, true);
	portal->visible = false;
	plan = GetCachedPlan(callback->plan, params, NULL, NULL);
	PortalDefineQuery(portal, NULL, callback->query, CMDTAG_SELECT, plan->stmt_list, plan);
	PortalStart(portal, params, 0, InvalidSnapshot);
	(void) compat_portal_run(portal, None_Receiver, &qc);
	PortalDrop(portal, false);
}

/*
 * Calls the callback within the caller's own transaction and returns the
 * first column of the first row of its result as text, NULL if there is none.
 */
char *
callback_execute_here(Callback *callback, ParamListInfo params)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *result = NULL;
	int			rc;

	SPI_connect();
	if (params != NULL)
	{
		SPIExecuteOptions options = {.params = params};

		rc = SPI_execute_extended(callback->query, &options);
	}
	else
		rc = SPI_execute(callback->query, false, 0);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of a callback: %s", SPI_result_code_string(rc));
	if (SPI_processed > 0)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		result = value != NULL ? MemoryContextStrdup(caller, value) : NULL;
	}
	SPI_finish();
	return result;
}
